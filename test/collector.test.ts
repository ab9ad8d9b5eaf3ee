import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { nextLinger } from '../scripts/collector.ts';
import type { BookQuality } from '../scripts/lib/coverage.ts';
import { waitFor } from '../scripts/lib/processes.ts';
import { type DataType, TABLES } from '../scripts/lib/rows.ts';
import { Pipeline, READY_MS } from './pipeline.ts';

describe('the collector against exchanges that misbehave', () => {
  const pipeline = new Pipeline({ MARKETPRISM_ORDERBOOK_INTERVAL: '1s', HEALTH_GRACE_SECONDS: '0' });
  before(async () => {
    await pipeline.choosePorts();
    await pipeline.startBroker();
    await pipeline.startDatabase();
    await pipeline.startSimulator(['--seed', '3', '--trades-per-second', '40']);
    await pipeline.startStore();
    await pipeline.startCollector();
    await waitFor('rows of every stream', READY_MS, healthy);
  });
  after(() => pipeline.close());

  async function healthy(): Promise<boolean> {
    return (await pipeline.health('collector'))?.status === 'healthy';
  }

  const resyncs = () =>
    pipeline.events('collector', 'resync').map(({ exchange, symbol, cause }) => `${exchange} ${symbol} ${cause}`);

  /** Rows of a table newer than its newest one now. */
  async function moreRows(table: string, where: string): Promise<void> {
    const newest = async () =>
      Number(
        (
          await pipeline.query(
            `SELECT max(toUnixTimestamp64Milli(timestamp)) FROM marketprism_hot.${table} WHERE ${where}`,
          )
        )[0]![0],
      );
    const now = await newest();
    await waitFor(`more ${table} where ${where}`, READY_MS, async () => (await newest()) > now);
  }

  test('a diff lost on the wire rebuilds that symbol’s book and touches no other', async () => {
    await pipeline.simulate({
      action: 'drop',
      exchange: 'binance_spot',
      symbol: 'ETH-USDT',
      data_type: 'orderbook_update',
      count: 1,
    });
    await waitFor('the resync', READY_MS, async () => resyncs().length > 0);
    await moreRows('orderbooks', "exchange = 'binance_spot' AND symbol = 'ETH-USDT'");
    assert.deepEqual(resyncs(), ['binance_spot ETH-USDT gap']);
  });

  test('garbage, repeats and late frames cost no row and no book', async () => {
    const before = resyncs().length;
    await pipeline.simulate({ action: 'garbage', exchange: 'binance_derivatives', count: 5 });
    await pipeline.simulate({
      action: 'repeat',
      exchange: 'binance_derivatives',
      symbol: 'BTC-USDT',
      data_type: 'orderbook_update',
      count: 3,
    });
    await pipeline.simulate({
      action: 'repeat',
      exchange: 'binance_spot',
      symbol: 'BTC-USDT',
      data_type: 'trade',
      count: 3,
    });
    await waitFor('the rejections', READY_MS, async () => pipeline.events('collector', 'frame_rejected').length > 0);
    await moreRows('orderbooks', "exchange = 'binance_derivatives' AND symbol = 'BTC-USDT'");
    assert.equal(resyncs().length, before);
    const sample = readFileSync(join(pipeline.dir, 'unknown', 'binance_derivatives.ndjson'), 'utf8')
      .trimEnd()
      .split('\n');
    assert.equal(sample.length, 10, 'five on each of two sockets, kept as a sample');
    assert.ok(sample.every((line) => typeof JSON.parse(line).frame === 'string'));
    const metrics = await (await fetch(`http://127.0.0.1:${pipeline.ports.metrics}/metrics`)).text();
    assert.match(metrics, /^marketprism_data_validation_errors_total\{exchange="binance_derivatives",.* [1-9]/m);
    assert.match(metrics, /^marketprism_errors_total\{component="binance_derivatives",error_type="rejected"\} 10$/m);
  });

  test('closed sockets come back, are subscribed again, and the books are built anew', async () => {
    const subscribed = () =>
      pipeline.events('collector', 'socket_subscribed').filter(({ exchange }) => exchange === 'binance_derivatives')
        .length;
    const before = subscribed();
    await pipeline.simulate({ action: 'close', exchange: 'binance_derivatives' });
    await waitFor('both sockets', READY_MS, async () => subscribed() >= before + 2);
    await moreRows('trades', "exchange = 'binance_derivatives'");
    await moreRows('orderbooks', "exchange = 'binance_derivatives' AND symbol = 'ETH-USDT'");
    assert.ok(resyncs().includes('binance_derivatives ETH-USDT disconnect'));
    assert.ok(
      !resyncs().some((each) => each.startsWith('binance_spot') && each.endsWith('disconnect')),
      'the other exchange stays',
    );
    await waitFor('health', READY_MS, healthy);
  });

  test('an announced shutdown is answered by a new connection beside the old one: no book breaks, no row is missing', async () => {
    const before = resyncs().length;
    await pipeline.simulate({ action: 'shutdown_notice', exchange: 'binance_spot' });
    await waitFor('a new connection', READY_MS, async () => pipeline.events('collector', 'socket_renewed').length > 0);
    const [renewed] = pipeline.events('collector', 'socket_renewed');
    assert.ok((renewed!.held as number) > 0, 'both were at work for a while');
    await moreRows('trades', "exchange = 'binance_spot'");
    await moreRows('orderbooks', "exchange = 'binance_spot'");
    assert.equal(resyncs().length, before);
    assert.equal((await pipeline.ledger()).sockets.binance_spot, 1, 'the old one is closed');
  });

  test('a refusal with retry-after is obeyed, and the snapshot fetched afterwards', async () => {
    await pipeline.simulate({ action: 'rest', exchange: 'binance_spot', status: 429, retry_after: 2, count: 1 });
    await pipeline.simulate({
      action: 'drop',
      exchange: 'binance_spot',
      symbol: 'BTC-USDT',
      data_type: 'orderbook_update',
      count: 1,
    });
    await waitFor('the refusal', READY_MS, async () => pipeline.events('collector', 'rest_refused').length === 1);
    await moreRows('orderbooks', "exchange = 'binance_spot' AND symbol = 'BTC-USDT'");
    const [refused] = pipeline.events('collector', 'rest_refused');
    const ledger = (await pipeline.ledger()) as unknown as { rest_refused: number };
    assert.equal(ledger.rest_refused, 1, 'nothing was asked while it was refused');
    assert.ok(Date.parse(refused!.until as string) - Date.parse(refused!.time as string) >= 1900);
  });

  test('a stream that is acknowledged and stays silent makes the health unhealthy, and names itself', async () => {
    await pipeline.simulate({ action: 'ack_silent', exchange: 'binance_derivatives', count: 2 });
    await pipeline.stop('collector');
    await pipeline.startCollector();
    await waitFor(
      'the other exchange',
      READY_MS,
      async () => (await pipeline.health('collector'))?.checks.binance_spot?.status === 'healthy',
    );
    // Its readings are asked for, and come one by one; what comes over the silent sockets never does.
    const told = async () => (await pipeline.health('collector'))?.checks.binance_derivatives?.error_message ?? '';
    await waitFor('its readings', READY_MS, async () => !/^(9|1\d) of 14 /.test(await told()));
    assert.match(await told(), /^8 of 14 streams have no fresh row: /);
    assert.equal((await pipeline.health('collector'))!.status, 'unhealthy');
    const answer = await fetch(`http://127.0.0.1:${pipeline.ports.health}/health`);
    assert.equal(answer.status, 503);
    await pipeline.simulate({ action: 'close', exchange: 'binance_derivatives' });
    await waitFor('health', READY_MS, healthy);
  });

  test('a broker that is away for a while costs nothing: what was sent meanwhile is stored', async () => {
    await pipeline.stop('collector');
    await pipeline.drained();
    const sentBefore = await sent();
    await pipeline.startCollector();
    await waitFor('health', READY_MS, healthy);
    process.kill(pipeline.children.get('nats-server')!.pid!, 'SIGSTOP');
    const before = await pipeline.received();
    await waitFor('frames meanwhile', READY_MS, async () => (await pipeline.received()) > before + 300);
    process.kill(pipeline.children.get('nats-server')!.pid!, 'SIGKILL');
    await waitFor('the collector to notice', READY_MS, async () =>
      /is away/.test((await pipeline.health('collector'))?.checks.broker?.error_message ?? ''),
    );
    await waitFor('frames without a broker', READY_MS, async () => (await pipeline.received()) > before + 600);
    await pipeline.brokerReady();
    await pipeline.simulate({ action: 'stop' });
    await pipeline.settled();
    const after = await sent();
    for (const [stream, count] of after) {
      const [exchange, symbol, type] = stream.split(' ');
      const table = TABLES[type as DataType].name;
      const frames = type === 'orderbook_update' ? 'NOT is_snapshot' : '1';
      const started = Date.parse(pipeline.events('collector', 'started').at(-1)!.time as string) * 1000;
      const [[stored] = []] = await pipeline.query(
        `SELECT count() FROM marketprism_hot.${table} WHERE exchange = '${exchange}' AND symbol = '${symbol}' AND ${frames} AND toUnixTimestamp64Micro(received_at) >= ${started}`,
      );
      assert.equal(Number(stored), count - (sentBefore.get(stream) ?? 0), stream);
    }
  });

  async function sent(): Promise<Map<string, number>> {
    const { streams } = await pipeline.ledger();
    return new Map(streams.map((each) => [`${each.exchange} ${each.symbol} ${each.data_type}`, each.sent]));
  }

  test('its metrics are measured, with the names that dashboards know', async () => {
    const text = await (await fetch(`http://127.0.0.1:${pipeline.ports.metrics}/metrics`)).text();
    const names = [
      'active_symbols_count [1-9][0-9.e+]*',
      'collector_last_success_timestamp_seconds\\{exchange="binance_spot",data_type="trade"\\} 1[0-9.e+]+',
      'cpu_usage_percent [0-9.]+',
      'disk_usage_percent [0-9.]+',
      'last_orderbook_update_timestamp\\{exchange="binance_spot",symbol="BTC-USDT"\\} 1[0-9.e+]+',
      'memory_usage_bytes [1-9][0-9.e+]*',
      'memory_usage_percent [0-9.]+',
      'nats_connected 1',
      'nats_messages_published_labeled_total\\{exchange="binance_spot",market_type="spot",data_type="trade"\\} [1-9][0-9.e+]*',
      'nats_messages_published_total\\{subject="trade\\.binance_spot\\.[^"]+"\\} [1-9][0-9.e+]*',
      'nats_publish_duration_seconds_count\\{data_type="trade"\\} [1-9][0-9.e+]*',
      'orderbook_resync_count\\{exchange="binance_spot"\\} [0-9]+',
      'orderbook_sync_status\\{exchange="binance_spot",symbol="BTC-USDT"\\} [01]',
      'orderbook_update_duration_seconds_count\\{exchange="binance_spot"\\} [1-9][0-9.e+]*',
      'orderbook_updates_total\\{exchange="binance_spot",symbol="BTC-USDT"\\} [1-9][0-9.e+]*',
      'orderbook_verified_percent\\{exchange="binance_spot",symbol="BTC-USDT"\\} [0-9.]+',
      'request_duration_seconds_count\\{endpoint="/api/v3/depth",method="GET"\\} [1-9][0-9.e+]*',
      'rows_received_total\\{exchange="binance_spot",data_type="trade"\\} [1-9][0-9.e+]*',
      'snapshot_requests_total\\{exchange="binance_spot",market_type="spot",symbol="BTC-USDT",status="ok"\\} [1-9][0-9.e+]*',
      'uptime_seconds [1-9][0-9.e+]*',
      'websocket_connected\\{exchange="binance_derivatives"\\} 2',
      'websocket_messages_received_total\\{exchange="binance_spot",message_type="trade"\\} [1-9][0-9.e+]*',
      'websocket_reconnections_total\\{exchange="binance_derivatives"\\} [0-9]+',
      'ws_last_inbound_timestamp\\{exchange="binance_spot"\\} 1[0-9.e+]+',
    ];
    const absent = names.filter((line) => !new RegExp(`^marketprism_${line}$`, 'm').test(text));
    assert.deepEqual(absent, []);
  });

  test('health tells per book how long it was verified, and without a break', async () => {
    const document = (await pipeline.health('collector'))! as unknown as {
      books: Record<string, Record<string, Record<string, BookQuality>>>;
    };
    const book = document.books.binance_derivatives!.perpetual!['ETH-USDT']!;
    assert.equal(book.standing, true);
    assert.ok(book.verified_percent > 0 && book.verified_percent <= 100, JSON.stringify(book));
    assert.ok((book.clean_percent ?? 0) > 0 && book.updates > 0, JSON.stringify(book));
  });

  test('a second collector of the same identity says who runs, and ends', () => {
    const env = { ...pipeline.env, HEALTH_CHECK_PORT: '0', METRICS_PORT: '0' };
    const second = spawnSync(process.execPath, ['--import', 'tsx', 'scripts/collector.ts'], { env, encoding: 'utf8' });
    assert.equal(second.status, 1);
    const holder = /^collector test in \S+ is already held \(pid (\d+), since .*\): stop that one first\n$/.exec(
      second.stderr,
    );
    assert.equal(Number(holder?.[1]), pipeline.children.get('collector')!.pid, second.stderr);
  });
});

test('rows of many streams at once linger longer, so that a message holds several; those of few leave as configured', () => {
  assert.equal(nextLinger(3, 5), 5);
  assert.equal(nextLinger(100, 5), 100);
  assert.equal(nextLinger(100_000, 5), 200, 'but nobody waits long for them');
  assert.equal(nextLinger(0, 500), 500, 'what is configured is the least');
});
