/**
 * `manage.ts unit-failed UNIT`: what OnFailure= of each unit runs. A unit fails for systemd when it has been started as often as its limit allows, or
 * could not be started at all: it is down and stays down. The services that would tell of it may be the ones that are down: this needs none of them.
 */
import { appendFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import type { Message } from '../alert_text.ts';
import { UsageError } from '../cli.ts';
import { type Config, loadConfig } from '../config.ts';
import { createLogger } from '../log.ts';
import { type Command, commandFlags } from '../manage/command.ts';
import { deliver, notifiersOf } from '../notifiers.ts';
import { pause } from '../pause.ts';

const HELP = {
  name: 'unit-failed',
  takes: 'UNIT',
  what: 'tells people that a unit is down for good (OnFailure= of the units runs it)',
};

/** What systemd says of the unit that failed (systemd.exec(5), `$MONITOR_SERVICE_RESULT` and others). */
export interface Failure {
  unit: string;
  /** exit-code, signal, watchdog, oom-kill, start-limit-hit, …; null: not told. */
  result: string | null;
  /** exited, killed, dumped. */
  code: string | null;
  /** Exit code or signal. */
  status: string | null;
}

export function failureFrom(unit: string, env: NodeJS.ProcessEnv): Failure {
  const value = (name: string) => env[`MONITOR_${name}`] || null;
  const { length } = '.service';
  const name = unit.endsWith('.service') ? unit.slice(0, -length) : unit;
  return {
    unit: `${value('UNIT')?.slice(0, -length) ?? name}.service`,
    result: value('SERVICE_RESULT'),
    code: value('EXIT_CODE'),
    status: value('EXIT_STATUS'),
  };
}

/** The words for people, with what they do about it. */
export function failureMessage({ unit, result, code, status }: Failure, place: string, { language }: Config): Message {
  const how = [result, code === null ? null : `${code} ${status ?? ''}`.trim()]
    .filter((each) => each !== null)
    .join(', ');
  const look = `journalctl -u ${unit} -n 50 -o cat; systemctl reset-failed ${unit}; systemctl start ${unit}`;
  const isChinese = language === 'zh';
  return {
    title: isChinese
      ? `MarketPrism ${place} [严重]: ${unit} 已停止`
      : `MarketPrism ${place} [critical]: ${unit} is down`,
    text: isChinese
      ? `${unit} 启动失败且不再重启（${how || '原因未知'}）。\n${look}`
      : `${unit} failed and is not started again (${how || 'systemd does not say why'}).\n${look}`,
    severity: 'critical',
    news: [{ event: 'unit_failed', unit, result, code, status }],
  };
}

export const unitFailedCommand: Command = {
  ...HELP,
  async run(argv, { env }) {
    const { positionals } = commandFlags(HELP, {}, argv);
    const [unit, ...more] = positionals;
    if (unit === undefined || more.length > 0) throw new UsageError('unit-failed takes one UNIT');
    const log = createLogger('unit-failed');
    const failure = failureFrom(unit, env);
    const record = { time: new Date().toISOString(), host: hostname(), ...failure };
    log.error({ event: 'unit_failed', ...failure });
    // Where systemd gives a folder for logs; by hand the line above is all.
    const { LOGS_DIRECTORY: directory } = env;
    if (directory) appendFileSync(join(directory, 'failures.jsonl'), `${JSON.stringify(record)}\n`);
    const config = loadConfig();
    const message = failureMessage(failure, hostname(), config);
    const { delivered, failed } = await deliver(notifiersOf(config.notify, hostname(), Date.now), message, pause);
    log.info({ event: 'told', delivered, failed });
    return failed.length === 0 ? 0 : 1;
  },
};
