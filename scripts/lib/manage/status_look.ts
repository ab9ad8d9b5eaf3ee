/** All that `manage.ts status` shows, asked for: services, the pipeline's figures, streams, gaps and books. */

import { createClickHouse, hotServer, selectText } from '../clickhouse.ts';
import { type Config, shownUrl } from '../config.ts';
import { healthOf } from '../joint_health.ts';
import {
  type Answered,
  type CollectorFigures,
  type DatabaseFigures,
  gapsFrom,
  gapsQuery,
  healthFrom,
  openGapsFrom,
  openGapsQuery,
  type Status,
  streamsFrom,
  streamsQuery,
} from '../status.ts';
import { steadyNow } from '../steady.ts';
import type { OverviewAnswer } from '../web/overview_answer.ts';
import { Overview } from '../web/overview_look.ts';
import { HealthLook, lookingContext } from './health.ts';
import { type ServiceNow, ServicesLook } from './services_now.ts';
import type { ServiceSet } from './set.ts';

/** The collector answers from memory. */
const HEALTH_TIMEOUT_MS = 5000;
/** Streams are counted over a day of rows: not at each look. */
const STREAMS_EVERY_MS = 30_000;

export interface SystemStatus {
  /** Wall clock, ms. */
  time: number;
  services: readonly ServiceNow[];
  overview: OverviewAnswer;
  streams: Status;
  /** How old the part that the database told is, ms. */
  streamsAgeMs: number;
}

/** Looks at one set again and again: rates are what rose between two looks. */
export class StatusLook {
  private readonly context: ReturnType<typeof lookingContext>;
  private readonly healths: HealthLook;
  private readonly services = new ServicesLook();
  private readonly overview: Overview;
  private hot: { at: number; asked: Answered<DatabaseFigures> } | null = null;

  constructor(config: Config) {
    this.context = lookingContext(config);
    this.healths = new HealthLook(this.context);
    this.overview = Overview.of(this.context);
  }

  /** @param set of the same configuration as before; its processes may be others */
  async look(set: ServiceSet): Promise<SystemStatus> {
    const { config } = this.context;
    const addresses = config.collectorPorts.map((port) => `http://127.0.0.1:${port}/health`);
    const [services, overview, { at, asked: hot }, health] = await Promise.all([
      this.healths.ask().then((found) => this.services.look(set, found)),
      this.overview.look(),
      this.askHot(),
      askCollectors(config.collectorPorts),
    ]);
    const database = `${config.hotDatabase} at ${shownUrl(config.clickhouseUrl)}`;
    const streams = { database, collector: addresses.join(', '), hot, health };
    return { time: Date.now(), services, overview, streams, streamsAgeMs: Math.round(steadyNow() - at) };
  }

  close(): Promise<void> {
    return this.context.close();
  }

  private async askHot(): Promise<{ at: number; asked: Answered<DatabaseFigures> }> {
    // One that did not answer may be back at any moment.
    if (this.hot !== null && 'figures' in this.hot.asked && steadyNow() - this.hot.at < STREAMS_EVERY_MS)
      return this.hot;
    this.hot = { at: steadyNow(), asked: await askDatabase(this.context.config) };
    return this.hot;
  }
}

async function askDatabase(config: Config): Promise<Answered<DatabaseFigures>> {
  const { hotDatabase } = config;
  const client = createClickHouse(hotServer(config), 'marketprism-manage');
  try {
    return {
      figures: {
        streams: streamsFrom(await selectText(client, streamsQuery(hotDatabase))),
        gaps: gapsFrom(await selectText(client, gapsQuery(hotDatabase))),
        open_gaps: openGapsFrom(await selectText(client, openGapsQuery(hotDatabase))),
      },
    };
  } catch (error) {
    return { fault: reasonOf(error) };
  } finally {
    await client.close();
  }
}

/** Where exchanges have processes of their own, all of them together. */
async function askCollectors(ports: readonly number[]): Promise<Answered<CollectorFigures>> {
  try {
    return healthFrom(await healthOf(ports, HEALTH_TIMEOUT_MS));
  } catch (error) {
    return { fault: reasonOf(error) };
  }
}

/** The first line of what went wrong; what was refused or timed out is told by the cause within. */
function reasonOf(error: unknown): string {
  const { message, cause, code } = error as Error & { code?: string };
  const inner = cause instanceof Error ? `: ${cause.message || (cause as NodeJS.ErrnoException).code}` : '';
  return `${message || code}${inner}`.split('\n')[0]!;
}
