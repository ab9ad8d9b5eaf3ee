const USAGE = `
manage.ts: the operator's entry: starts and stops the services, tells how they are, and mends.

Usage:   npx tsx scripts/manage.ts COMMAND [ARGUMENTS]      (also: npm run manage -- COMMAND)
Example: npx tsx scripts/manage.ts start
         npx tsx scripts/manage.ts status --once
         npx tsx scripts/manage.ts logs store -f --level warn

Commands (COMMAND --help tells more of each):
{COMMANDS}

Where the systemd units are installed they are meant; else npm start of the same data directory. Settings are those of the services that run, and only
where none does those of the shell.
Environment: as the services; MARKETPRISM_DATA_DIR (data), MARKETPRISM_MODE (live, demo; unset: what runs, live before demo).
Exit code: status, health and diagnose 0 healthy, 1 degraded, 2 unhealthy, 3 could not check; integrity and repair their own; the others 0 done, 1 not
done; 64 wrong usage.
`;

import { runAsScript, UsageError } from './lib/cli.ts';
import { COMMANDS } from './lib/manage/commands.ts';
import { Systemd } from './lib/manage/systemd.ts';

/** --help from the table of commands. */
function usage(): string {
  const width = Math.max(...COMMANDS.map(({ name }) => name.length));
  const lines = COMMANDS.map(({ name, what }) => `  ${name.padEnd(width)}  ${what}`);
  return USAGE.replace('{COMMANDS}', lines.join('\n')).trim();
}

/** Fires at the first SIGINT or SIGTERM; a second one ends at once. */
function stopSignal(): AbortSignal {
  const stop = new AbortController();
  const onSignal = () => {
    for (const each of ['SIGINT', 'SIGTERM'] as const) {
      process.off(each, onSignal);
      process.once(each, () => process.exit(1));
    }
    stop.abort();
  };
  for (const each of ['SIGINT', 'SIGTERM'] as const) process.on(each, onSignal);
  return stop.signal;
}

async function main(): Promise<number> {
  const [name, ...argv] = process.argv.slice(2);
  if (name === '--help' || name === '-h' || name === 'help') {
    process.stdout.write(`${usage()}\n`);
    return 0;
  }
  const command = COMMANDS.find((each) => each.name === name);
  if (command === undefined) {
    const names = COMMANDS.map((each) => each.name).join(', ');
    throw new UsageError(
      `${name === undefined ? 'a COMMAND is needed' : `there is no command "${name}"`}: ${names} (--help tells more)`,
    );
  }
  const { env, stdout: out, stderr: err } = process;
  return command.run(argv, { env, systemd: new Systemd(), stop: stopSignal(), out, err });
}

runAsScript(import.meta.url, main);
