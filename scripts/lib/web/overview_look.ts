/**
 * One look at the whole pipeline: what its services, the broker, the database and the disk say now, and by how much their counters rose since the
 * looks before. It is made when somebody asks, at most every second or two, and serves all who ask meanwhile: without a reader there is no work.
 */
import type { ClickHouseClient } from '@clickhouse/client';
import { coldServer, createClickHouse } from '../clickhouse.ts';
import { ofEveryShard, storedName } from '../cluster.ts';
import { DATA_TYPES, TABLES } from '../rows.ts';
import { steadyNow } from '../steady.ts';
import type { OverviewAnswer } from './overview_answer.ts';
import { BrokerLook } from './overview_broker.ts';
import { diskOf, LetterCounter, outboxFileBytes } from './overview_files.ts';
import { Rates } from './overview_rates.ts';
import {
  type Asked,
  acceptedOf,
  askCollectors,
  askMonitor,
  askReplicate,
  askStore,
  type CollectorDocument,
  replicatedOf,
  type ServiceDocument,
  tablesOf,
  whyOf,
} from './overview_services.ts';
import { composed } from './overview_stages.ts';
import type { WebContext } from './route.ts';

/** A look that is younger is told again, ms. */
const KEPT_MS = 1500;
const REPLICATION_ROUNDS = 3;
/** A database that answers later is away for the overview, ms. */
const TIMEOUT_MS = 2000;

/** Rows and bytes of a tier, or why they are not known. */
export type TierAsked = { figures: { rows: number; bytes: number } } | { fault: string };

/** All that one look found. */
export interface Found {
  /** Wall clock, ms. */
  time: number;
  collector: Asked<CollectorDocument>;
  store: Asked<ServiceDocument>;
  replicate: Awaited<ReturnType<typeof askReplicate>>;
  monitor: Asked<ServiceDocument>;
  broker: Awaited<ReturnType<BrokerLook['ask']>>;
  hot: TierAsked;
  cold: TierAsked;
  letters: OverviewAnswer['deadletters'];
  outboxFileBytes: number;
  disk: OverviewAnswer['disk'];
}

/** Counters by their source. */
export interface SourceRates {
  /** `exchange data_type`. */
  collector: Rates;
  /** By stream. */
  broker: Rates;
  /** By data type. */
  store: Rates;
  /** By table. */
  replicate: Rates;
}

const LOOKS = new WeakMap<WebContext, Overview>();

export class Overview {
  private readonly rates: SourceRates;
  private readonly starts = new Map<string, { uptime: number; number: number }>();
  private readonly broker: BrokerLook;
  private readonly letters: LetterCounter;
  private readonly cold: ClickHouseClient;
  private last: OverviewAnswer | null = null;
  private lastAt = Number.NEGATIVE_INFINITY;
  private looking: Promise<OverviewAnswer> | null = null;

  /** @param steady the steady clock, ms */
  constructor(
    private readonly context: WebContext,
    private readonly steady: () => number = steadyNow,
  ) {
    const { config, client, stop } = context;
    this.broker = new BrokerLook(context);
    this.letters = new LetterCounter(config.dataDir);
    // It copies by rounds: over three of them the rate is steady, and over less than one it is none.
    const roundMs = config.replicationSeconds * 1000;
    const replicate = new Rates(REPLICATION_ROUNDS * roundMs, roundMs);
    this.rates = { collector: new Rates(), broker: new Rates(), store: new Rates(), replicate };
    const isOneServer = config.clickhouseUrl === config.coldClickhouseUrl;
    this.cold = isOneServer ? client : createClickHouse(coldServer(config), 'marketprism-web overview');
    if (this.cold !== client) stop.addEventListener('abort', () => void this.cold.close(), { once: true });
  }

  /** The one of this service. */
  static of(context: WebContext): Overview {
    let overview = LOOKS.get(context);
    if (overview === undefined) LOOKS.set(context, (overview = new Overview(context)));
    return overview;
  }

  /** How everything stands now. */
  look(): Promise<OverviewAnswer> {
    if (this.last !== null && this.steady() - this.lastAt < KEPT_MS) return Promise.resolve(this.last);
    this.looking ??= this.make().finally(() => {
      this.looking = null;
    });
    return this.looking;
  }

  private async make(): Promise<OverviewAnswer> {
    const found = await this.ask();
    this.last = composed(this.context, found, this.rates);
    this.lastAt = this.steady();
    return this.last;
  }

  private async ask(): Promise<Found> {
    const { config, clock } = this.context;
    // Each counter is read at the moment of its own answer, and not when the slowest one came.
    const [collector, store, replicate, monitor, broker, hot, cold, letters, disk] = await Promise.all([
      askCollectors(config.collectorPorts).then((asked) => this.takeCollector(asked)),
      askStore(config.storePorts).then((asked) => this.takeStore(asked)),
      askReplicate(config.replicatePort).then((asked) => {
        this.takeService('replicate', asked, (document) =>
          [...replicatedOf(document)].map(([table, { copied }]) => [table, copied]),
        );
        return asked;
      }),
      askMonitor(config.monitorPort),
      this.broker.ask().then((asked) => this.takeBroker(asked)),
      askTier(this.context.client, config.hotDatabase),
      askTier(this.cold, config.coldDatabase),
      this.letters.count(),
      diskOf(config.dataDir),
    ]);
    const files = outboxFileBytes(config.dataDir);
    return {
      ...{ time: clock(), collector, store, replicate, monitor, broker, hot, cold, letters, disk },
      outboxFileBytes: files,
    };
  }

  private takeCollector(asked: Asked<CollectorDocument>): Asked<CollectorDocument> {
    const { collector } = this.rates;
    if ('fault' in asked) collector.forget();
    else {
      const accepted = acceptedOf(asked.document);
      const counters = new Map(accepted.map((each) => [`${each.exchange} ${each.data_type}`, each.rows]));
      collector.take({ at: this.steady(), origin: asked.document.boot, counters });
    }
    return asked;
  }

  private takeStore(asked: Asked<ServiceDocument>): Asked<ServiceDocument> {
    this.takeService('store', asked, (document) =>
      [...tablesOf(document)].map(([type, { inserted }]) => [type, inserted]),
    );
    return asked;
  }

  private takeService<T extends ServiceDocument>(
    name: 'store' | 'replicate',
    asked: Asked<T>,
    counters: (document: T) => [string, number][],
  ): void {
    if ('fault' in asked) {
      this.rates[name].forget();
      return;
    }
    const origin = this.startOf(name, asked.document.uptime);
    this.rates[name].take({ at: this.steady(), origin, counters: new Map(counters(asked.document)) });
  }

  /** Names a run of a service that names none itself: one that is younger than it was is another one. */
  private startOf(name: string, uptime: number): string {
    const known = this.starts.get(name);
    const number = known === undefined ? 0 : known.number + (uptime < known.uptime ? 1 : 0);
    this.starts.set(name, { uptime, number });
    return String(number);
  }

  private takeBroker(asked: Awaited<ReturnType<BrokerLook['ask']>>): typeof asked {
    const { broker } = this.rates;
    if ('fault' in asked) broker.forget();
    else {
      const { streams } = asked.figures;
      const origin = streams.map(({ created }) => created).join(' ');
      broker.take({ at: this.steady(), origin, counters: new Map(streams.map((each) => [each.name, each.last_seq])) });
    }
    return asked;
  }
}

/** Rows and bytes of our tables as the server counts its parts: no table is read. */
async function askTier(client: ClickHouseClient, database: string): Promise<TierAsked> {
  try {
    const result = await client.query({
      query: `SELECT sum(rows), sum(bytes_on_disk) FROM ${ofEveryShard(client, 'parts')} WHERE active AND database = {database:String} AND table IN {tables:Array(String)}`,
      query_params: { database, tables: DATA_TYPES.map((type) => storedName(client, TABLES[type].name)) },
      format: 'JSONCompactEachRow',
      clickhouse_settings: { max_execution_time: TIMEOUT_MS / 1000 },
      abort_signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    const [row] = await result.json<[string, string]>();
    return { figures: { rows: Number(row?.[0]), bytes: Number(row?.[1]) } };
  } catch (error) {
    const { type, code } = error as { type?: string; code?: string };
    return { fault: `the database does not answer: ${type ?? code ?? whyOf(error)}` };
  }
}
