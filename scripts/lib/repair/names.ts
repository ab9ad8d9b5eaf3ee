/** What repair.ts can mend, by name: checks say which of them mends what they find. */
export const REPAIR_NAMES = [
  'duplicates',
  'impossible',
  'refetch',
  'different',
  'missing-in-hot',
  'missing-in-cold',
  'holes',
  'dead-letters',
] as const;
export type RepairName = (typeof REPAIR_NAMES)[number];
