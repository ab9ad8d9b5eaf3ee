/** The commands of manage.ts: one table, from which --help is made. A new command is one line here. */

import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { OperatorError } from '../cli.ts';
import { nodeFlags } from '../services.ts';
import { brokerConfigCommand } from '../systemd/broker_config.ts';
import { installCommand, uninstallCommand } from '../systemd/install.ts';
import { unitFailedCommand } from '../systemd/unit_failed.ts';
import { unitsCommand } from '../systemd/units_command.ts';
import { clean } from './clean.ts';
import type { Command, ManageContext } from './command.ts';
import { diagnose } from './diagnose.ts';
import { init, sql } from './init.ts';
import { logs } from './logs.ts';
import { findSet } from './set.ts';
import { health, status } from './status.ts';
import { restart, start, stop } from './supervise.ts';

export const COMMANDS: readonly Command[] = [
  init,
  start,
  stop,
  restart,
  status,
  health,
  passedOn(
    'integrity',
    'asks everything that should be true of the stored data: integrity.ts, with its flags and exit code',
  ),
  passedOn('repair', 'mends what integrity finds: repair.ts, with its flags and exit code'),
  diagnose,
  logs,
  clean,
  sql,
  installCommand,
  uninstallCommand,
  unitsCommand,
  brokerConfigCommand,
  unitFailedCommand,
];

/** A command that is a script of its own: it is run in the environment of the services. */
function passedOn(name: string, what: string): Command {
  return {
    ...{ name, takes: '[FLAGS]', what },
    async run(argv, context) {
      // Its help needs no services.
      const isHelp = argv.includes('--help') || argv.includes('-h');
      const env = isHelp ? context.env : await environmentFor(context);
      return runScript(name, argv, env, context.stop);
    },
  };
}

async function environmentFor({ env: shell, systemd, err }: ManageContext): Promise<NodeJS.ProcessEnv> {
  const { env, note } = await findSet(shell, systemd);
  if (note !== null) err.write(`${note}\n`);
  return env;
}

function runScript(name: string, argv: readonly string[], env: NodeJS.ProcessEnv, stop: AbortSignal): Promise<number> {
  const path = join(import.meta.dirname, '..', '..', `${name}.ts`);
  const child = spawn(process.execPath, [...nodeFlags(name), '--import', 'tsx', path, ...argv], {
    env,
    stdio: 'inherit',
  });
  // Ctrl-C reaches both; a signal that only this process got is handed on.
  stop.addEventListener('abort', () => child.kill('SIGTERM'), { once: true });
  return new Promise((done, fail) => {
    child.once('error', fail);
    child.once('close', (code, signal) => {
      if (code !== null) done(code);
      else fail(new OperatorError(`${name}.ts was ended by ${signal}`, 3));
    });
  });
}
