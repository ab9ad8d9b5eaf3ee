const USAGE = `
bench.ts: how fast the parts are, as ratios within one run, against the goals of the design.

Usage:   npm run bench [-- --only SUITES] [--json FILE]
Example: npm run bench -- --only frames --json bench.json

Flags:
  --only SUITES   some of: frames, book, e2e, store, latency, memory, replicate, storage, cost (comma-separated; default all)
  --json FILE     also write the figures to FILE: {"frames": {...}, "book": {...}}, one object per suite that ran

frames and book are ratios: each pair is run side by side in one process for many rounds, after a warm-up; a figure is the median over
the rounds. The others run the real processes and tell what this machine did at that moment: let nothing else run. The exit code is 0
whether or not goals are met. Lines under the table are information.
`;

import { writeFileSync } from 'node:fs';
import { flags, runAsScript, UsageError } from '../../scripts/lib/cli.ts';
import { bookSuite } from './book.ts';
import { costSuite } from './cost.ts';
import { e2eSuite } from './e2e.ts';
import { framesSuite } from './frames.ts';
import { latencySuite } from './latency.ts';
import { memorySuite } from './memory.ts';
import { replicateSuite } from './replicate.ts';
import { storageSuite } from './storage.ts';
import { storeSuite } from './store.ts';
import { type Figure, type Suite, type SuiteResult, verdict } from './suite.ts';

/** In the order in which they run. */
const SUITES: Suite[] = [
  framesSuite,
  bookSuite,
  e2eSuite,
  storeSuite,
  latencySuite,
  memorySuite,
  replicateSuite,
  storageSuite,
  costSuite,
];

interface Ran {
  suite: string;
  result: SuiteResult;
}

/** @throws UsageError that names a suite that there is not. */
function chosen(only: string | undefined): Suite[] {
  if (only === undefined) return SUITES;
  const names = only.split(',').map((each) => each.trim());
  const known = SUITES.map((suite) => suite.name);
  const unknown = names.find((each) => !known.includes(each));
  if (unknown !== undefined) throw new UsageError(`--only takes some of ${known.join(', ')}, not "${unknown}"`);
  return SUITES.filter((suite) => names.includes(suite.name));
}

function table(ran: Ran[]): string {
  const rows = ran.flatMap(({ suite, result }) => result.figures.map((figure) => tableRow(suite, figure)));
  const all = [['what', 'measured', 'goal', ''], ...rows];
  const widths = [0, 1, 2].map((column) => Math.max(...all.map((row) => row[column]!.length)));
  const lines = all.map(([what, measured, goal, met]) =>
    [what!.padEnd(widths[0]!), measured!.padStart(widths[1]!), goal!.padStart(widths[2]!), met].join('  ').trimEnd(),
  );
  const information = ran.flatMap(({ result }) => result.information.map((line) => `  ${line}`));
  return `${[...lines, '', ...information].join('\n')}\n`;
}

function tableRow(suite: string, figure: Figure): string[] {
  const sign = figure.best === 'low' ? '≤' : '≥';
  const goal = figure.goal === null ? '' : `${sign} ${figure.goal}`;
  return [`${suite}.${figure.name}`, figure.value.toFixed(2), goal, verdict(figure)];
}

function json(ran: Ran[]): string {
  const figures = ran.map(({ suite, result }) => [
    suite,
    Object.fromEntries(result.figures.map(({ name, value }) => [name, Number(value.toFixed(4))])),
  ]);
  return `${JSON.stringify(Object.fromEntries(figures), null, 2)}\n`;
}

async function main(): Promise<number> {
  const options = flags(USAGE, { only: { type: 'string' }, json: { type: 'string' } });
  const ran: Ran[] = [];
  for (const suite of chosen(options.only)) {
    ran.push({ suite: suite.name, result: await suite.run((line) => process.stderr.write(`${line}\n`)) });
  }
  process.stdout.write(table(ran));
  if (options.json !== undefined) writeFileSync(options.json, json(ran));
  return 0;
}

runAsScript(import.meta.url, main);
