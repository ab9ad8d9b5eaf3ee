/**
 * Three brokers in networks of their own, of which each is killed, wiped and cut off while rows flow: npm run test:nats-cluster (as root; about ten
 * minutes). The whole flow runs beside them: simulator, collector, store, database; and in the end the ledger of all that balances.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, type TestContext, test } from 'node:test';
import { waitFor } from '../scripts/lib/processes.ts';
import { steadyNow } from '../scripts/lib/steady.ts';
import { type StreamName, streamDefinitions } from '../scripts/lib/streams.ts';
import { isInside, Networks, networkTrouble, runInside, type Side } from './namespaces.ts';
import { NatsCluster, NODES, type NodeNumber } from './nats_cluster.ts';
import { Pipeline, READY_MS } from './pipeline.ts';
import { assertSame } from './sim_client.ts';

const STREAMS: StreamName[] = streamDefinitions().map(({ name }) => name);
const SIMULATOR = ['--trades-per-second', '60', '--seed', '7'];
/** A cut lasts at least so long, and until rows have come over the others. */
const CUT_MS = 20_000;
/** Rows that came after a fault began, and are in hot while it lasts. */
const ROWS_WITHIN = 200;
/** Of a flow that has to stand still: as long as a fault, and longer than any failover. */
const STALL_MS = 30_000;

/** Which tables the simulator's ledger tells of, and under which id. */
const LEDGERS = { trade: ['trades', 'trade_id'], orderbook_update: ['orderbook_updates', 'last_update_id'] } as const;

/** All of it, or a part: `MARKETPRISM_CLUSTER_PARTS=killed,split,cut,controls`. */
const PARTS = (process.env.MARKETPRISM_CLUSTER_PARTS ?? 'killed,split,cut,controls').split(',');
const skips = (part: string) => ({ skip: !isInside || !PARTS.includes(part) });

/** What a nats-server says that found its replica to differ from the others'. */
const RESET = 'Resetting stream cluster state';
const EPOCHS = 'SELECT stream, max(js_epoch) FROM marketprism_hot.stream_epochs GROUP BY stream';

const networks = isInside ? await Networks.make() : null;
after(() => networks?.close());

/** The flow over a cluster of its own. */
class Flow {
  readonly pipeline: Pipeline;
  readonly cluster: NatsCluster;

  /** @param extra environment of store and collector */
  constructor(extra: NodeJS.ProcessEnv) {
    const own: NodeJS.ProcessEnv = {
      MARKETPRISM_STREAM_REPLICAS: '3',
      MARKETPRISM_STREAM_MAX_BYTES: String(2 ** 30),
      MARKETPRISM_GAP_AGE: '30s',
      ...extra,
    };
    this.pipeline = new Pipeline(own);
    this.cluster = new NatsCluster(join(this.pipeline.dir, 'cluster'), networks!.places, this.pipeline.logDir);
    own.MARKETPRISM_NATS_URL = this.cluster.url;
  }

  /** @param node where the collector begins; absent: anywhere */
  async start(node?: NodeNumber): Promise<void> {
    const { pipeline, cluster } = this;
    await pipeline.choosePorts();
    await cluster.start();
    await pipeline.startDatabase();
    await pipeline.startSimulator(SIMULATOR);
    await pipeline.startStore();
    await pipeline.startCollector(node === undefined ? {} : { MARKETPRISM_NATS_URL: cluster.urlOf(node) });
    await this.rowsSince(Date.now());
    await cluster.whole(STREAMS);
  }

  /** Until hot has rows that were received after `since`, wall clock, ms. */
  async rowsSince(since: number): Promise<void> {
    await waitFor('rows in hot', READY_MS, async () => (await this.received(since)) > ROWS_WITHIN);
  }

  /** Rows in hot that were received after `since`. */
  async received(since: number): Promise<number> {
    const parts = Object.values(LEDGERS).map(
      ([table]) =>
        `SELECT count() AS n FROM marketprism_hot.${table} WHERE received_at > fromUnixTimestamp64Milli(toInt64(${since}))`,
    );
    return Number((await this.pipeline.query(`SELECT sum(n) FROM (${parts.join(' UNION ALL ')})`))[0]![0]);
  }

  /** Until rows flow beside a fault that lasts. */
  async goesOn(what: string, context: TestContext): Promise<void> {
    const [since, begun] = [Date.now(), steadyNow()];
    await this.rowsSince(since);
    const leader = await this.cluster.leaderOf('MARKET_DATA');
    const seconds = ((steadyNow() - begun) / 1000).toFixed(1);
    context.diagnostic(`${what}: ${ROWS_WITHIN} rows received since are in hot after ${seconds} s; leader ${leader}`);
  }

  /** Every key that the simulator sent is in hot once; nobody took anything for lost; no gap is open. */
  async balances(context: TestContext): Promise<void> {
    const { pipeline } = this;
    await pipeline.simulate({ action: 'stop' });
    await pipeline.settled();
    let all = 0;
    for (const { exchange, symbol, data_type } of (await pipeline.ledger()).streams) {
      if (data_type !== 'trade' && data_type !== 'orderbook_update') continue;
      const query = new URLSearchParams({ exchange, symbol, data_type });
      const sent = (await (await fetch(`${pipeline.control}/ledger/keys?${query}`)).text()).trimEnd().split('\n');
      const [table, column] = LEDGERS[data_type];
      const own = `exchange = '${exchange}' AND symbol = '${symbol}'${data_type === 'trade' ? '' : ' AND NOT is_snapshot'}`;
      const rows = await pipeline.query(`SELECT toString(${column}) FROM marketprism_hot.${table} WHERE ${own}`);
      assertSame(rows.map(([id]) => id!).sort(), sent.sort(), `${exchange} ${symbol} ${data_type}`);
      all += sent.length;
    }
    assert.ok(all > ROWS_WITHIN, `${all} rows: enough to tell`);
    const gaps = (status: string) =>
      pipeline.query(`SELECT * FROM marketprism_hot.gaps_now WHERE status = '${status}'`);
    await waitFor('no open gap', READY_MS, async () => (await gaps('open')).length === 0);
    this.numbering(await pipeline.query(EPOCHS), context);
    for (const name of ['store', 'collector'] as const) assert.equal(pipeline.children.get(name)!.restarts, 0, name);
    const left = (['store', 'collector'] as const).map((name) => pipeline.events(name, 'broker_left').length);
    context.diagnostic(
      `${all} rows sent, all of them in hot once; servers left by store and collector: ${left.join(', ')}`,
    );
  }

  /**
   * The epoch of a numbering rises only where a replica came to number the same messages otherwise than the others, which nats-server
   * 2.9.10 does now and then after a cut, and tells.
   */
  private numbering(epochs: string[][], context: TestContext): void {
    const { pipeline, cluster } = this;
    const resets = NODES.map((node) => cluster.log(node).split(RESET).length - 1);
    const raised = epochs.filter(([, epoch]) => epoch !== '1').map(([stream, epoch]) => `${stream} ${epoch}`);
    context.diagnostic(
      `replicas that a node threw away: ${resets.join(', ')}; epochs raised: ${raised.join(', ') || 'none'}`,
    );
    if (resets.some((count) => count > 0)) return;
    assert.deepEqual(raised, []);
    assert.deepEqual(pipeline.events('store', 'checkpoint_gone'), []);
    assert.deepEqual(pipeline.events('collector', 'broker_lost_tail'), []);
  }

  async close(): Promise<void> {
    await this.pipeline.close();
    await this.cluster.close();
  }
}

const trouble = networkTrouble();

describe('three brokers in networks of their own', { skip: isInside }, () => {
  test('are killed, wiped and cut off, and nothing is lost', async () => {
    assert.equal(trouble, null);
    assert.equal(await runInside(import.meta.filename), 0);
  });
});

describe('a node is killed', skips('killed'), () => {
  let flow: Flow;
  before(async () => {
    flow = new Flow({});
    await flow.start();
  });
  after(() => flow?.close());

  for (const node of NODES) {
    test(`rows go on beside a dead node ${node}, which comes back with its data`, async (context) => {
      await flow.cluster.kill(node);
      await flow.goesOn('a dead node', context);
      flow.cluster.run(node);
      await flow.cluster.whole(STREAMS);
    });
  }

  test('rows go on beside a dead leader, which comes back without its data', async (context) => {
    const leader = (await flow.cluster.leaderOf('MARKET_DATA'))!;
    await flow.cluster.kill(leader, true);
    await flow.goesOn('a dead leader', context);
    flow.cluster.run(leader);
    await flow.cluster.whole(STREAMS);
  });

  test('rows go on after all three died at once', async (context) => {
    await Promise.all(NODES.map((node) => flow.cluster.kill(node)));
    for (const node of NODES) flow.cluster.run(node);
    await flow.goesOn('all three', context);
    await flow.cluster.whole(STREAMS);
  });

  test('in the end everything that was sent is in hot once', async (context) => {
    await flow.balances(context);
  });
});

const CUTS: [part: string, what: string, Side[]][] = [
  ['split', 'a node is cut off from the others, and keeps its clients', ['route']],
  ['cut', 'a node is cut off from the others and from clients', ['route', 'client']],
];
for (const [part, what, sides] of CUTS) {
  describe(what, skips(part), () => {
    let flow: Flow;
    before(async () => {
      flow = new Flow({});
      await flow.start();
    });
    after(() => flow?.close());

    for (const node of NODES) {
      test(`rows go on beside node ${node}`, async (context) => {
        const until = steadyNow() + CUT_MS;
        for (const side of sides) networks!.set(node, side, false);
        try {
          await flow.goesOn(`node ${node} cut off`, context);
          await waitFor('the end of the cut', CUT_MS, async () => steadyNow() > until);
        } finally {
          for (const side of sides) networks!.set(node, side, true);
        }
        await flow.cluster.whole(STREAMS);
      });
    }

    test('in the end everything that was sent is in hot once', async (context) => {
      await flow.balances(context);
    });
  });
}

describe('what carries it', skips('controls'), () => {
  let flow: Flow;
  /** Nothing that is received from now on comes to hot while the fault lasts. */
  async function stalls(): Promise<void> {
    // What was on its way when the fault began still arrives.
    const since = Date.now() + 1000;
    const until = steadyNow() + STALL_MS;
    await waitFor('the time', STALL_MS * 2, async () => steadyNow() > until);
    assert.equal(await flow.received(since), 0);
  }

  test('with one replica the death of the leader stops the rows, until it comes back', async (context) => {
    flow = new Flow({ MARKETPRISM_STREAM_REPLICAS: '1', MARKETPRISM_EXCHANGES: 'binance_spot' });
    try {
      await flow.start();
      const leader = (await flow.cluster.leaderOf('MARKET_DATA'))!;
      const other = (await flow.cluster.leaderOf('ORDERBOOK_SNAP'))!;
      await Promise.all([...new Set([leader, other])].map((node) => flow.cluster.kill(node)));
      await stalls();
      for (const node of new Set([leader, other])) flow.cluster.run(node);
      await flow.goesOn('back', context);
      await flow.balances(context);
    } finally {
      await flow.close();
    }
  });

  test('who does not leave a server that is cut off stands still with it', async (context) => {
    flow = new Flow({ MARKETPRISM_WITHOUT: 'switch', MARKETPRISM_EXCHANGES: 'binance_spot' });
    try {
      await flow.start(0);
      networks!.set(0, 'route', false);
      await stalls();
      networks!.set(0, 'route', true);
      await flow.goesOn('joined again', context);
      await flow.balances(context);
    } finally {
      await flow.close();
    }
  });
});
