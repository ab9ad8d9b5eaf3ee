const USAGE = `
integrity.ts: asks everything that should be true of the stored data and of what it goes through, and says what is not.

Usage:   npx tsx scripts/integrity.ts [--quick | --full | --deep | --from TIME --to TIME] [--detailed-report FILE] [--json]
Example: npx tsx scripts/integrity.ts --full
         npx tsx scripts/integrity.ts --from 2026-11-20T08:00:00Z --to 2026-11-20T09:00:00Z --detailed-report report.json

Flags:
  --quick                 the last hour (default)
  --full                  the last 24 hours
  --deep                  the last 14 days
  --from TIME --to TIME   another time, UTC
  --detailed-report FILE  writes every finding with the query that shows it, as JSON
  --json                  prints each check as a JSON line, and the whole, with the coverage table, as the last one

A check is healthy, degraded (a warning), unhealthy, not applicable here, or unchecked: asked in vain, which is never called healthy.

Environment: CLICKHOUSE_URL, CLICKHOUSE_USER, CLICKHOUSE_PASSWORD, MARKETPRISM_COLD_CLICKHOUSE_URL, MARKETPRISM_NATS_URL, MARKETPRISM_DATA_DIR,
MARKETPRISM_MODE (demo looks at a demo), HEALTH_CHECK_PORT, HOT_STORAGE_HTTP_PORT, COLD_STORAGE_HTTP_PORT.
Exit code: the worst of all: 0 healthy, 1 degraded, 2 unhealthy, 3 a check could not be asked.
`;

import type { Outcome } from './lib/checks/check.ts';
import { coverageText } from './lib/checks/coverage.ts';
import { askAll, DEPTHS, flat, headOf, SPANS, type Span } from './lib/checks/round.ts';
import { flags, moment, runAsScript, UsageError } from './lib/cli.ts';
import { loadConfig } from './lib/config.ts';
import { writeJsonAtomic } from './lib/files.ts';
import { EXIT, textTable } from './lib/status.ts';
import { steadyNow } from './lib/steady.ts';

/** Findings of one check that are printed; the report has all. */
const SHOWN = 10;

const OPTIONS = {
  quick: { type: 'boolean', default: false },
  full: { type: 'boolean', default: false },
  deep: { type: 'boolean', default: false },
  from: { type: 'string' },
  to: { type: 'string' },
  'detailed-report': { type: 'string' },
  json: { type: 'boolean', default: false },
} as const;

function spanOf(given: ReturnType<typeof flags<typeof OPTIONS>>, now: number): Span {
  const named = DEPTHS.filter((name) => given[name]);
  const { from, to } = given;
  if (named.length > 1 || (named.length > 0 && (from ?? to) !== undefined))
    throw new UsageError('--quick, --full, --deep and --from --to exclude each other');
  if ((from === undefined) !== (to === undefined)) throw new UsageError('--from and --to come together');
  if (from === undefined || to === undefined) return { from: now - SPANS[named[0] ?? 'quick'], to: now };
  const [first, last] = [moment('--from', from), moment('--to', to)];
  if (first >= last) throw new UsageError(`--from ${from} is not before --to ${to}`);
  return { from: first, to: last };
}

/** A check as people read it. */
function tell({ check, limit, verdict, figure, findings }: Outcome): string {
  const lines = [`${verdict.padEnd(14)}  ${check.name.padEnd(16)}  ${figure}  (limit: ${limit})`];
  for (const { severity, subject, what } of findings.slice(0, SHOWN))
    lines.push(`    ${severity}: ${subject}: ${what}`);
  if (findings.length > SHOWN) lines.push(`    … and ${findings.length - SHOWN} more`);
  if (findings.some(({ severity }) => severity !== 'hint')) {
    lines.push(`    fix: ${check.fix}`);
    if (check.repairs)
      lines.push(`         npx tsx scripts/repair.ts --check '${check.name}' (tells; with --apply it does it)`);
  }
  return lines.join('\n');
}

function summary(outcomes: Outcome[]): string {
  const head = ['check', 'verdict', 'findings', 'ms'];
  const rows = outcomes.map(({ check, verdict, findings, ms }) => [
    ...[check.name, verdict, String(findings.filter(({ severity }) => severity !== 'hint').length), String(ms)],
  ]);
  return textTable(head, rows, 2);
}

async function main(): Promise<number> {
  const given = flags(USAGE, OPTIONS);
  const now = Date.now();
  const span = spanOf(given, now);
  const round = await askAll({
    config: loadConfig(),
    now,
    clock: steadyNow,
    span,
    spanOf: () => span,
    onOutcome: (outcome) =>
      void process.stdout.write(`${given.json ? JSON.stringify(flat(outcome)) : tell(outcome)}\n`),
  });
  const { outcomes, covered, verdict } = round;
  const head = headOf(round);
  if (given['detailed-report'] !== undefined)
    writeJsonAtomic(given['detailed-report'], { ...head, checks: outcomes.map(flat) });
  const table = covered === null ? '' : `${coverageText(covered, now)}\n\n`;
  process.stdout.write(
    given.json
      ? `${JSON.stringify(head)}\n`
      : `\n${table}${summary(outcomes)}\n\n${head.from} to ${head.to}: ${verdict}\n`,
  );
  return EXIT[verdict];
}

runAsScript(import.meta.url, main);
