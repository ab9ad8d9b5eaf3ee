const USAGE = `
web.ts: the web API: what the desk's scripts have written, the market from the database, the monitor's API passed on, and how everything stands.

Usage:   npx tsx scripts/web.ts [--once]
Example: curl -s 'http://127.0.0.1:5000/api/escape-signal-stats?limit=2'
         curl -s http://127.0.0.1:5000/api/openapi.json

Flags:
  --once    prints how everything stands, as /health does, and ends: exit 1 when it is unhealthy

All that can be asked is in /api/openapi.json. Wrong parameters are answered by 400 {"error", "field"}. Reading is open on loopback; whatever changes
something needs Authorization: Bearer $MARKETPRISM_API_TOKEN. Where MARKETPRISM_WEB_HOST lets other machines in, they need the token for everything but
/ping (a browser: as the password of any name), and it goes over the wire as it is: put a proxy with TLS before it, or use an SSH tunnel instead.

Environment: WEB_HTTP_PORT (5000), MARKETPRISM_WEB_HOST (127.0.0.1), MARKETPRISM_API_TOKEN, CLICKHOUSE_URL, CLICKHOUSE_USER, CLICKHOUSE_PASSWORD,
MARKETPRISM_DATA_DIR, MARKETPRISM_MODE (live, demo), HEALTH_CHECK_PORT, HOT_STORAGE_HTTP_PORT, COLD_STORAGE_HTTP_PORT, MONITOR_HTTP_PORT,
HEALTH_GRACE_SECONDS (120), LOG_LEVEL.
`;

import { flags, runAsScript } from './lib/cli.ts';
import { createClickHouse, hotServer } from './lib/clickhouse.ts';
import { loadConfig } from './lib/config.ts';
import { createLogger } from './lib/log.ts';
import { createRegistry, healthDocument, untilStopped } from './lib/service.ts';
import { tellReady } from './lib/service_manager.ts';
import { Answering } from './lib/vital_signs.ts';
import { ABOUT_ROUTES } from './lib/web/about_routes.ts';
import { DESK_CHART_ROUTES } from './lib/web/desk_chart_routes.ts';
import { warmUp } from './lib/web/desk_files.ts';
import { DESK_ROUTES } from './lib/web/desk_routes.ts';
import { HARVEST_ROUTES } from './lib/web/harvest_routes.ts';
import { LIVE_ROUTES } from './lib/web/live_routes.ts';
import { MARKET_ROUTES } from './lib/web/market_routes.ts';
import { OVERVIEW_ROUTES } from './lib/web/overview_routes.ts';
import { QUALITY_ROUTES } from './lib/web/quality_routes.ts';
import { REPAIR_ROUTES } from './lib/web/repair_routes.ts';
import type { Route, WebContext } from './lib/web/route.ts';
import { serve } from './lib/web/server.ts';
import { serviceChecks } from './lib/web/service_health.ts';
import { SOAK_ROUTES } from './lib/web/soak_routes.ts';

/** This process answers itself at once, or hangs. */
const ANSWER_LIMIT_MS = 10_000;

export const ROUTES: Route[] = [
  ...ABOUT_ROUTES,
  ...MARKET_ROUTES,
  ...OVERVIEW_ROUTES,
  ...LIVE_ROUTES,
  ...DESK_ROUTES,
  ...DESK_CHART_ROUTES,
  ...HARVEST_ROUTES,
  ...QUALITY_ROUTES,
  ...REPAIR_ROUTES,
  ...SOAK_ROUTES,
];

async function main(): Promise<number> {
  const { once } = flags(USAGE, { once: { type: 'boolean', default: false } });
  const config = loadConfig();
  const log = createLogger('web');
  const client = createClickHouse(hotServer(config), 'marketprism-web');
  const stop = new AbortController();
  const context: WebContext = { config, log, clock: Date.now, client, stop: stop.signal };
  const checks = () => serviceChecks(context);
  if (once) {
    const document = healthDocument('web', 0, await checks(), {});
    process.stdout.write(`${JSON.stringify(document)}\n`);
    await client.close();
    return document.status === 'unhealthy' ? 1 : 0;
  }
  const stopped = untilStopped(log);
  const registry = createRegistry({ dataDir: config.dataDir });
  const served = await serve({ context, routes: ROUTES, checks, registry });
  tellReady(log, [new Answering(`${served.url}/ping`, ANSWER_LIMIT_MS)]);
  log.info({ event: 'started', url: served.url, routes: ROUTES.length });
  // Whoever asks first need not wait for all of it.
  warmUp(context).catch((error: unknown) => log.error({ event: 'warm_up_failed', err: error }));
  await stopped;
  stop.abort();
  await served.close();
  await client.close();
  log.info({ event: 'stopped' });
  return 0;
}

runAsScript(import.meta.url, main);
