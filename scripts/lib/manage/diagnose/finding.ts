/** What a diagnosis is made of. */
import type { Verdict } from '../../status.ts';
import type { ServiceNow } from '../services_now.ts';
import type { ServiceSet } from '../set.ts';
import type { Run } from '../systemd.ts';

/** ok and hint change nothing; unchecked: it was asked in vain, which is never ok. */
export type Severity = 'ok' | 'hint' | 'warning' | 'error' | 'unchecked';

export const VERDICTS: Record<Severity, Verdict> = {
  ...{ ok: 'healthy', hint: 'healthy', warning: 'degraded', error: 'unhealthy', unchecked: 'unchecked' },
};

export interface Finding {
  severity: Severity;
  subject: string;
  /** What was measured. */
  what: string;
  /** One line that can be pasted, or that says what to set; null where there is nothing to mend. */
  remedy: string | null;
}

export interface DiagnoseContext {
  set: ServiceSet;
  services: readonly ServiceNow[];
  run: Run;
  isBooted: boolean;
}

/** One area that is looked at. */
export interface Probe {
  area: string;
  look(context: DiagnoseContext): Promise<Finding[]>;
}

export const ok = (subject: string, what: string): Finding => ({ severity: 'ok', subject, what, remedy: null });

export function finding(severity: Severity, subject: string, what: string, remedy: string | null): Finding {
  return { severity, subject, what, remedy };
}
