/** `manage.ts diagnose`: what can keep the services from running well, each with its remedy. */
import { UsageError } from '../cli.ts';
import { EXIT, type Verdict } from '../status.ts';
import { type Command, onlyFlags } from './command.ts';
import { clock } from './diagnose/clock.ts';
import { configuration } from './diagnose/configuration.ts';
import { disk } from './diagnose/disk.ts';
import { type DiagnoseContext, type Finding, finding, type Probe, VERDICTS } from './diagnose/finding.ts';
import { limits } from './diagnose/limits.ts';
import { locks } from './diagnose/locks.ts';
import { permissions } from './diagnose/permissions.ts';
import { ports } from './diagnose/ports.ts';
import { units } from './diagnose/units.ts';
import { versions } from './diagnose/versions.ts';
import { worstOf } from './services_now.ts';
import { findSet } from './set.ts';
import { runProgram } from './systemd.ts';
import { lookOnce } from './until_up.ts';

/** In the order in which they are told. */
const PROBES: readonly Probe[] = [ports, locks, disk, versions, clock, permissions, configuration, limits, units];

const DIAGNOSE = {
  name: 'diagnose',
  takes: '[--json]',
  what: 'ports, locks, disk, versions, clock, permissions, configuration, limits, systemd: each finding with its remedy',
  more: `
A finding is ok, a hint (changes nothing), a warning, an error, or unchecked: asked in vain, which is never called ok. Whether the
services are well is asked by manage.ts health, and whether the data are by manage.ts integrity.

Exit code: 0 healthy; 1 a warning; 2 an error; 3 something could not be looked at, and nothing worse was found; 64 wrong usage.
`,
};

interface AreaFinding extends Finding {
  area: string;
}

export const diagnose: Command = {
  ...DIAGNOSE,
  async run(argv, { env, systemd, out, err }) {
    const { json } = onlyFlags(DIAGNOSE, { json: { type: 'boolean', default: false } }, argv);
    const set = await findSet(env, systemd).catch((error: unknown) => {
      // A wrong variable is a finding, and all others stand on the configuration.
      if (error instanceof UsageError) return error;
      throw error;
    });
    const findings =
      set instanceof UsageError
        ? [{ area: 'configuration', ...finding('error', 'environment', set.message, 'set it right, or unset it') }]
        : await findingsOf({ set, services: await lookOnce(set), run: runProgram, isBooted: systemd.isBooted });
    if (!(set instanceof UsageError) && set.note !== null) err.write(`${set.note}\n`);
    const verdict = worstOf(findings.map(({ severity }) => VERDICTS[severity]));
    out.write(
      `${json ? JSON.stringify({ status: verdict, exit_code: EXIT[verdict], findings }) : textOf(findings, verdict)}\n`,
    );
    return EXIT[verdict];
  },
};

async function findingsOf(context: DiagnoseContext): Promise<AreaFinding[]> {
  const all: AreaFinding[] = [];
  for (const { area, look } of PROBES) {
    const found = await look(context).catch((error: Error) => [
      finding('unchecked', area, `could not be looked at: ${error.message.split('\n')[0]}`, null),
    ]);
    all.push(...found.map((each) => ({ area, ...each })));
  }
  return all;
}

function textOf(findings: readonly AreaFinding[], verdict: Verdict): string {
  const lines = findings.flatMap(({ area, severity, subject, what, remedy }) => [
    `${severity.padEnd(9)}  ${area.padEnd(13)}  ${subject}: ${what}`,
    ...(remedy === null ? [] : [`${''.padEnd(9)}  ${''.padEnd(13)}  → ${remedy}`]),
  ]);
  return [...lines, `diagnosis: ${verdict}`].join('\n');
}
