/** Verdicts of a soak run in words. */
import type { SoakVerdict } from '../../lib/soak/report.ts';
import { UNKNOWN } from '../ui/format.ts';
import { Badge, type Tone } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';

const TEXT = texts({
  passed: ['passed', '通过'],
  failed: ['failed', '未通过'],
  incomplete: ['incomplete', '未完成'],
});
const TONES: Record<SoakVerdict, Tone> = { passed: 'good', failed: 'bad', incomplete: 'warn' };

/** @param props.verdict null: the report is damaged, and nothing is known */
export function SoakBadge({ verdict }: { verdict: SoakVerdict | null }) {
  return verdict === null ? <span>{UNKNOWN}</span> : <Badge tone={TONES[verdict]}>{TEXT[verdict]}</Badge>;
}
