/** Recorded sessions over the simulator, and the command itself. Small hand-made sessions cover what the large ones prove. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { pause } from '../scripts/lib/pause.ts';
import { missing, SHARED } from './fixtures.ts';
import {
  assertSame,
  Book,
  Client,
  type Data,
  depth,
  get,
  type Level,
  type Snapshot,
  sent,
  start,
  until,
} from './sim_client.ts';

const SCRIPT = fileURLToPath(new URL('../scripts/exchange_sim.ts', import.meta.url));
const SESSIONS = fileURLToPath(new URL('../../shared/fixtures/hftbacktest', import.meta.url));
const scratch = mkdtempSync(join(tmpdir(), 'exchange-sim-'));
after(() => rmSync(scratch, { recursive: true }));

/** A small hand-made session: a snapshot at 100, and the given updates as [U, u, best bid price, quantity]. */
function session(name: string, diffs: [number, number, string, string][], missing?: number): string {
  const lines = [
    `1000000000 {"lastUpdateId":100,"bids":[["9.90000000","1.00000000"]],"asks":[["11.00000000","2.00000000"]]}`,
  ];
  for (const [index, [U, u, price, quantity]] of diffs.entries()) {
    const at = 1_000_000_000 + index * 100_000_000;
    const depthData = `{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":${U},"u":${u},"b":[["${price}","${quantity}"]],"a":[]}`;
    const trade = `{"e":"trade","E":1,"s":"BTCUSDT","t":${500 + index},"p":"10.00000000","q":"1.00000000","T":1,"m":true,"M":true}`;
    if (index + 1 !== missing) lines.push(`${at} {"stream":"btcusdt@depth@100ms","data":${depthData}}`);
    lines.push(`${at} {"stream":"btcusdt@trade","data":${trade}}`);
    if (index === 3) {
      lines.push(
        `${at} {"stream":"btcusdt@bookTicker","data":{"u":${u},"s":"BTCUSDT","b":"9.95000000","B":"4.00000000","a":"11.00000000","A":"2.00000000"}}`,
      );
    }
  }
  const file = join(scratch, `${name}.txt`);
  writeFileSync(file, `${lines.join('\n')}\n`);
  return file;
}
const DIFFS: [number, number, string, string][] = [
  [98, 103, '10.00000000', '3.00000000'],
  [104, 105, '10.00000000', '0.00000000'],
  [106, 107, '9.95000000', '4.00000000'],
  [108, 109, '9.00000000', '1.00000000'],
];

describe('replay', () => {
  it('gives each connection the recorded bytes from the beginning, and first the recorded snapshot', async () => {
    const file = session('plain', DIFFS);
    const sim = await start({ exchanges: ['binance_spot'], replays: [{ exchange: 'binance_spot', file }] });
    const recorded = readFileSync(file, 'latin1')
      .split('\n')
      .map((line) => line.slice(line.indexOf(' ') + 1));
    for (const _ of ['first', 'second']) {
      const client = await Client.open(sim, 'binance_spot', '/stream');
      client.subscribe(['btcusdt@aggTrade'], 1);
      client.subscribe(['btcusdt@depth@100ms'], 2);
      await until('everything', () => client.frames.length === 8);
      assert.deepEqual(
        client.texts.filter((text) => text.startsWith('{"stream"')),
        recorded.filter((text) => /@(trade|depth)/.test(text)),
      );
      assert.equal((await get(sim, 'binance_spot', '/api/v3/depth?symbol=BTCUSDT&limit=1000')).body, recorded[0]);
      const later = await depth(sim, 'binance_spot');
      assert.deepEqual(
        [later.lastUpdateId, later.bids],
        [
          109,
          [
            ['9.95000000', '4.00000000'],
            ['9.90000000', '1.00000000'],
            ['9.00000000', '1.00000000'],
          ],
        ],
      );
      await until('the end is known', () => sim.ledger().replay_done === true);
    }
    const { body } = await get(sim, 'binance_spot', '/api/v3/historicalTrades?symbol=BTCUSDT&fromId=502&limit=10');
    assert.deepEqual(
      (JSON.parse(body) as { id: number }[]).map(({ id }) => id),
      [502, 503],
    );
    assert.deepEqual(
      [sent(sim, 'binance_spot', 'trade').sent, sent(sim, 'binance_spot', 'orderbook_update').sent],
      [4, 4],
    );
  });

  it('withholds one update from the wire but keeps it in the book', async () => {
    const replay = { exchange: 'binance_spot', file: session('drop', DIFFS), dropDiff: 2 };
    const sim = await start({ exchanges: ['binance_spot'], replays: [replay] });
    const client = await Client.open(sim, 'binance_spot', '/ws/btcusdt@depth');
    await until('the others', () => client.texts.length === 3);
    await depth(sim, 'binance_spot');
    assert.equal((await depth(sim, 'binance_spot')).bids[0]?.[0], '9.95000000');
    const line = sent(sim, 'binance_spot', 'orderbook_update');
    assert.deepEqual([line.sent, line.dropped], [3, 1]);
  });

  it('puts the top of the book right where the recording itself misses an update', async () => {
    const replay = { exchange: 'binance_spot', file: session('hole', DIFFS, 2) };
    const sim = await start({ exchanges: ['binance_spot'], replays: [replay] });
    const client = await Client.open(sim, 'binance_spot', '/ws/btcusdt@depth');
    await until('the others', () => client.texts.length === 3);
    await depth(sim, 'binance_spot');
    assert.deepEqual((await depth(sim, 'binance_spot')).bids[0], ['9.95000000', '4.00000000']);
  });

  it('with a clock, a later connection joins where the others are', async () => {
    const replay = { exchange: 'binance_spot', file: session('clock', DIFFS), speed: 2 };
    const sim = await start({ exchanges: ['binance_spot'], replays: [replay] });
    const first = await Client.open(sim, 'binance_spot', '/stream?streams=btcusdt@trade');
    await until('the first trade', () => first.frames.length > 0);
    const second = await Client.open(sim, 'binance_spot', '/stream?streams=btcusdt@trade');
    await until('the end', () => sim.ledger().replay_done === true && first.frames.length === 4);
    assert.ok(second.frames.length < 4);
  });

  it('with a clock, the session begins for the connections of all its kinds together', async () => {
    const replay = { exchange: 'binance_spot', file: session('together', DIFFS), speed: 2 };
    const sim = await start({ exchanges: ['binance_spot'], replays: [replay] });
    const trades = await Client.open(sim, 'binance_spot', '/stream?streams=btcusdt@trade');
    await pause(700);
    assert.equal(trades.frames.length, 0);
    const books = await Client.open(sim, 'binance_spot', '/stream?streams=btcusdt@depth');
    // Written is not read yet.
    await until('the end', () => sim.ledger().replay_done === true && trades.frames.length + books.frames.length === 8);
    assert.deepEqual([trades.frames.length, books.frames.length], [4, 4]);
  });

  it('a session that cannot be used is refused with its file and line', async () => {
    const file = join(scratch, 'broken.txt');
    writeFileSync(file, '1 {"stream":"btcusdt@trade","data":{}}\n');
    await assert.rejects(start({ replays: [{ exchange: 'binance_spot', file }] }), /broken\.txt line 1/);
    await assert.rejects(
      start({ replays: [{ exchange: 'binance_spot', file: join(scratch, 'none') }] }),
      /cannot read/,
    );
  });

  const recordings = [
    {
      exchange: 'binance_spot',
      file: 'binance-spot/btcusdt_20240808.gz',
      stem: 'btcusdt',
      route: '',
      trades: 9757,
      diffs: 3451,
    },
    {
      exchange: 'binance_derivatives',
      file: 'binance-usdm/ethusdt_20240808.gz',
      stem: 'ethusdt',
      route: '/public',
      trades: 14_076,
      diffs: 6586,
    },
  ] as const;
  for (const { exchange, file, stem, route, trades, diffs } of recordings) {
    const path = join(SESSIONS, file);
    const skip = existsSync(path) ? false : 'the recorded sessions are not here';
    it(`${exchange}: the whole recorded session, and a resync in the middle of it`, { skip }, async () => {
      const symbol = stem.toUpperCase();
      const sim = await start({ exchanges: [exchange], replays: [{ exchange, file: path, dropDiff: 1000 }] });
      const client = await Client.open(sim, exchange, `${route}/stream?streams=${stem}@aggTrade/${stem}@depth@100ms`);
      const count = (family: string): number =>
        client.texts.filter((text) => text.startsWith(`{"stream":"${stem}@${family}`)).length;
      await until('half', () => client.texts.length > (trades + diffs) / 2);
      const original = await depth(sim, exchange, symbol);
      client.socket.pause();
      const resync = await depth(sim, exchange, symbol);
      client.socket.resume();
      await until(
        'the end',
        () => sim.ledger().replay_done === true && count('trade') === trades && count('depth') === diffs - 1,
      );
      const lines = gunzipSync(readFileSync(path)).toString('latin1').split('\n');
      const texts = new Set(lines.map((line) => line.slice(line.indexOf(' ') + 1)));
      assert.ok(
        client.texts.every((text) => texts.has(text)),
        'byte for byte',
      );
      const book = new Book(original);
      const changes = lines
        .filter((line) => line.includes('@depth'))
        .map((line) => (JSON.parse(line.slice(line.indexOf(' '))) as { data: Data }).data);
      for (const diff of changes.filter(({ u }) => u > original.lastUpdateId && u <= resync.lastUpdateId))
        book.apply(diff);
      assert.ok(changes.some(({ u }) => u === resync.lastUpdateId));
      const side = (levels: Map<string, string>, sign: number): Level[] =>
        [...levels].sort(([one], [other]) => (Number(one) - Number(other)) * sign).slice(0, 1000);
      assertSame(resync.bids, side(book.bids, -1), 'bids');
      assertSame(resync.asks, side(book.asks, 1), 'asks');
      const line = sim.ledger().streams.find(({ data_type }) => data_type === 'orderbook_update');
      assert.deepEqual([line?.sent, line?.dropped], [diffs - 1, 1]);
    });
  }
});

describe('replay of another format, with several instruments', () => {
  const folder = join(SHARED, 'cryptofeed', 'binance');
  const file = join(folder, 'BINANCE.ws.1.0');
  const skip = missing(file);
  const replay = { exchange: 'binance_spot', file } as const;
  /** Depth updates recorded, and those that apply to the recorded snapshot: with the snapshots the 176 that the source counts. */
  const BOOKS = [
    ['NKNUSDT', 'NKN-USDT', 150, 149],
    ['BLZETH', 'BLZ-ETH', 10, 9],
    ['LRCBTC', 'LRC-BTC', 15, 13],
    ['RUNEEUR', 'RUNE-EUR', 2, 1],
  ] as const;

  it('the four books synchronize, and agree with the best prices that the venue told', { skip }, async () => {
    const sim = await start({ exchanges: ['binance_spot'], replays: [replay] });
    const client = await Client.open(sim, 'binance_spot', '/stream');
    const stems = BOOKS.map(([name]) => name.toLowerCase());
    client.subscribe(stems.flatMap((stem) => [`${stem}@depth@100ms`, `${stem}@bookTicker`, `${stem}@aggTrade`]));
    const snapshots = new Map<string, Snapshot>();
    for (const [name] of BOOKS) snapshots.set(name, await depth(sim, 'binance_spot', name));
    await until('the end', () => sim.ledger().replay_done === true && client.frames.length === 177 + 84 + 2);
    const recorded = readFileSync(file, 'latin1').split('\n');
    const sessionTexts = new Set(recorded.map((line) => line.slice(line.indexOf(' ') + 1)));
    assert.ok(
      client.texts.slice(1).every((text) => sessionTexts.has(text)),
      'byte for byte',
    );
    let compared = 0;
    const figures = BOOKS.map(([name, symbol]) => {
      const stem = name.toLowerCase();
      const book = new Book(snapshots.get(name) as Snapshot);
      const tickers = new Map(client.of(`${stem}@bookTicker`).map((ticker) => [ticker.u, ticker]));
      const diffs = client.of(`${stem}@depth@100ms`);
      let applied = 0;
      for (const diff of diffs) {
        if (diff.u <= book.id) continue;
        assert.ok(diff.U <= book.id + 1, `${name}: nothing is missing before ${diff.U}`);
        book.apply(diff);
        applied++;
        const ticker = tickers.get(diff.u);
        if (!ticker) continue;
        assert.deepEqual(book.best(), [ticker.b, ticker.B, ticker.a, ticker.A], name);
        compared++;
      }
      assert.equal(sent(sim, 'binance_spot', 'orderbook_update', symbol).sent, diffs.length);
      return [name, symbol, diffs.length, applied];
    });
    assert.deepEqual(figures, BOOKS);
    assert.equal(compared, 26);
    for (const [name] of BOOKS) {
      const answer = await depth(sim, 'binance_spot', name);
      const last = client.of(`${name.toLowerCase()}@depth@100ms`).at(-1);
      assert.equal(answer.lastUpdateId, last?.u, `${name}: asked again, the book at the end is told`);
    }
  });

  it('lists what the venue listed, and tells aggregates as aggregates only', { skip }, async () => {
    const sim = await start({ exchanges: ['binance_spot'], replays: [replay] });
    const listed = JSON.parse((await get(sim, 'binance_spot', '/api/v3/exchangeInfo')).body) as {
      symbols: {
        symbol: string;
        baseAsset: string;
        quoteAsset: string;
        filters: { tickSize?: string; stepSize?: string }[];
      }[];
    };
    const [nkn] = listed.symbols.filter(({ symbol }) => symbol === 'NKNUSDT');
    assert.deepEqual([nkn?.baseAsset, nkn?.quoteAsset, nkn?.filters[0]?.tickSize], ['NKN', 'USDT', '0.00010000']);
    assert.equal(listed.symbols.length, 4);
    const client = await Client.open(sim, 'binance_spot', '/stream');
    client.subscribe(['nknusdt@trade', 'nknusdt@aggTrade', 'lrcbtc@trade', 'nknusdt@kline_1m']);
    await until('the end', () => sim.ledger().replay_done === true && client.of('nknusdt@aggTrade').length > 0);
    assert.deepEqual(
      client.of('nknusdt@aggTrade').map(({ a }) => a),
      [15683430],
    );
    assert.equal(client.frames.filter(({ stream }) => stream.endsWith('@trade')).length, 0);
    assert.deepEqual(
      [sent(sim, 'binance_spot', 'agg_trade', 'NKN-USDT').sent, sent(sim, 'binance_spot', 'trade', 'NKN-USDT').sent],
      [1, 0],
    );
    const rest = async (path: string): Promise<object[]> => JSON.parse((await get(sim, 'binance_spot', path)).body);
    assert.deepEqual(await rest('/api/v3/historicalTrades?symbol=NKNUSDT&fromId=1'), []);
    assert.deepEqual(
      (await rest('/api/v3/aggTrades?symbol=NKNUSDT')).map((row) => 'a' in row && row.a),
      [15683430],
    );
  });

  it('what is not beside the frames is told by its name', { skip }, async () => {
    const copy = join(scratch, 'BINANCE.ws.1.0');
    writeFileSync(copy, readFileSync(file));
    await assert.rejects(start({ replays: [{ ...replay, file: copy }] }), /BINANCE\.0/);
    const unnamed = join(scratch, 'frames.txt');
    writeFileSync(unnamed, readFileSync(file));
    await assert.rejects(start({ replays: [{ ...replay, file: unnamed }] }), /X\.ws\.1\.0/);
  });
});

describe('command', () => {
  function run(...args: string[]): {
    out: () => string;
    ended: Promise<number | null>;
    kill: (signal: NodeJS.Signals) => boolean;
  } {
    const child = spawn(process.execPath, ['--import', 'tsx', SCRIPT, ...args], {
      env: { ...process.env, LOG_LEVEL: 'info' },
    });
    let out = '';
    child.stdout.on('data', (piece: Buffer) => (out += piece));
    child.stderr.on('data', (piece: Buffer) => (out += piece));
    return {
      out: () => out,
      ended: new Promise((done) => child.once('exit', done)),
      kill: (signal) => child.kill(signal),
    };
  }

  it('announces its addresses, writes them down, and stops cleanly', async () => {
    const file = join(scratch, 'endpoints.json');
    const one = run('--port', '0', '--exchanges', 'binance_spot', '--endpoints', file);
    // Written last, after the line that tells the addresses.
    await until('it is ready', () => existsSync(file));
    const { control, endpoints } = JSON.parse(one.out().split('\n')[0] as string) as {
      control: string;
      endpoints: object;
    };
    assert.deepEqual(JSON.parse(readFileSync(file, 'utf8')), endpoints);
    assert.equal((await fetch(`${control}/ledger`)).status, 200);
    const second = run('--port', new URL(control).port);
    assert.equal(await second.ended, 1);
    assert.match(second.out(), /^port \d+ on 127\.0\.0\.1 is in use[^\n]*\n$/);
    one.kill('SIGTERM');
    assert.equal(await one.ended, 0);
  });

  it('refuses wrong flags with one line and 64', async () => {
    const wrong = [
      ['--sed', '1'],
      ['--exchanges', 'kraken'],
      ['--symbols', 'BTCUSDT'],
      ['--replay', 'x'],
      ['--speed', '2'],
      ['--trades-per-second', '0'],
      ['--liquidations-per-minute', '61'],
    ];
    for (const args of wrong) {
      const one = run('--port', '0', ...args);
      assert.equal(await one.ended, 64, args.join(' '));
      assert.match(one.out(), /^[^\n]+\n$/);
    }
  });
});
