const USAGE = `
monitor.ts: asks all checks by the clock, and tells people what is new: once, when it gets worse, and when it is over.

Usage:   npx tsx scripts/monitor.ts
Example: MARKETPRISM_LANG=zh LARKBOT_ID=... npx tsx scripts/monitor.ts
         curl -s http://127.0.0.1:8082/api/monitoring/alerts?state=standing
         curl -s -X POST -H "Authorization: Bearer $MARKETPRISM_API_TOKEN" http://127.0.0.1:8082/api/monitoring/test-alert

Quick rounds (the last hour) run every 15 minutes, full ones (24 h) each hour, a deep one (14 days) at 02:00 of MARKETPRISM_TIMEZONE; what was
missed while no monitor ran is made up for after HEALTH_GRACE_SECONDS. Each round is a line of DATA/monitoring_results/monitoring_YYYYMMDD.jsonl, each
change of an alert one of DATA/alerts/alerts.jsonl; what reached nobody is in DATA/alerts/undelivered.jsonl.

Environment, besides that of integrity.ts: MONITOR_HTTP_PORT (8082), MARKETPRISM_API_TOKEN (unset: nothing can be changed over HTTP),
MARKETPRISM_LANG (en, zh), MARKETPRISM_TIMEZONE (Asia/Shanghai), HEALTH_GRACE_SECONDS (120), LOG_LEVEL; and whom to tell: MARKETPRISM_WEBHOOK_URL (JSON),
SLACK_WEBHOOK_URL, LARKBOT_ID (or its whole URL) with LARKBOT_SECRET, DINGTALK_WEBHOOK_URL with DINGTALK_SECRET,
SMTP_URL (smtp://user:password@host:587?from=ADDRESS) with ALERT_EMAIL_TO.
`;

import { mkdirSync } from 'node:fs';
import { hostname } from 'node:os';
import { Cron } from 'croner';
import { DEPTHS, type Depth } from './lib/checks/round.ts';
import { flags, runAsScript } from './lib/cli.ts';
import { loadConfig } from './lib/config.ts';
import { takeLock } from './lib/lock.ts';
import { createLogger } from './lib/log.ts';
import { Monitor } from './lib/monitor.ts';
import { serveMonitor } from './lib/monitor_api.ts';
import { registerMonitorMetrics } from './lib/monitor_metrics.ts';
import { catchUp, EVERY_MS, SCHEDULE } from './lib/monitor_schedule.ts';
import { notifiersOf } from './lib/notifiers.ts';
import { pause } from './lib/pause.ts';
import { type Check, createRegistry, healthDocument, untilStopped } from './lib/service.ts';
import { tellReady } from './lib/service_manager.ts';
import { steadyNow } from './lib/steady.ts';
import { Vital } from './lib/vital_signs.ts';

/** A round that is later than this is told in health. */
const LATE_ROUND_MS = 2 * EVERY_MS.quick;

async function main(): Promise<number> {
  flags(USAGE, {});
  const config = loadConfig();
  const log = createLogger('monitor');
  mkdirSync(config.dataDir, { recursive: true });
  const lock = await takeLock(config.dataDir, 'monitor');
  const place = hostname();
  const notifiers = notifiersOf(config.notify, place, Date.now);
  const monitor = new Monitor({ config, log, notifiers, place, wallClock: Date.now, clock: steadyNow, pause });
  const registry = createRegistry({ dataDir: config.dataDir });
  registerMonitorMetrics(registry, monitor);
  const health = () => healthDocument('monitor', config.healthGraceSeconds, checksOf(monitor), {});
  const app = await serveMonitor({ monitor, token: config.apiToken, port: config.monitorPort, health, registry, log });
  // A round that fails has said so, and the next one comes by itself.
  const due = (depth: Depth) => monitor.round(depth, 'schedule').catch(() => null);
  const crons = DEPTHS.map((depth) => new Cron(SCHEDULE[depth], { timezone: config.timeZone }, () => void due(depth)));
  // Services that were started together with this one are not up yet.
  const first = setTimeout(() => void due(catchUp(monitor.last, Date.now())), config.healthGraceSeconds * 1000);
  tellReady(log, [new Vital('rounds', LATE_ROUND_MS)]);
  log.info({ event: 'started', port: config.monitorPort, notifiers: notifiers.map(({ name }) => name) });
  await untilStopped(log);
  clearTimeout(first);
  for (const cron of crons) cron.stop();
  await app.close();
  await monitor.close();
  await lock.release();
  log.info({ event: 'stopped' });
  return 0;
}

function checksOf({ last, fault, lastDelivery }: Monitor): Record<string, Check> {
  const age = last.quick === undefined ? null : Date.now() - last.quick;
  const late =
    age === null ? 'no round yet' : age > LATE_ROUND_MS ? `the last was ${Math.round(age / 60_000)} min ago` : null;
  const trouble = fault ?? late;
  const failed = lastDelivery?.failed ?? [];
  const told = failed.map(({ name, reason }) => `${name}: ${reason}`).join('; ');
  const status = failed.length === 0 ? 'healthy' : lastDelivery!.delivered.length > 0 ? 'degraded' : 'unhealthy';
  return {
    rounds: { status: trouble === null ? 'healthy' : 'unhealthy', error_message: trouble },
    notifications: { status, error_message: failed.length === 0 ? null : told },
  };
}

runAsScript(import.meta.url, main);
