/** The simulated Deribit: its JSON-RPC, channels, REST, limits and faults over real sockets. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { deribitDerivatives } from '../scripts/exchanges/deribit.ts';
import { LIQUIDATION_DELAY_MS } from '../scripts/lib/sim/deribit_market.ts';
import {
  type Answer,
  BOOK,
  type BookData,
  breaks,
  Client,
  EXCHANGE,
  get,
  keys,
  rebuilt,
  result,
  SYMBOL,
  start,
  TICKER,
  TRADES,
  type TradeData,
  venueAt,
} from './deribit_client.ts';
import { feedHarness } from './feed_harness.ts';
import { assertSame, until } from './sim_client.ts';

const HOUR_MS = 3_600_000;

describe('conversation', () => {
  it('grants the channels that there are, and none where one needs a login', async () => {
    const sim = await start();
    const client = await Client.open(sim);
    const { result: granted, ...rest } = await client.subscribe(TRADES, 'trades.NO-PERPETUAL.100ms', BOOK);
    assert.deepEqual(granted, [TRADES, BOOK]);
    assert.deepEqual(Object.keys(rest), ['jsonrpc', 'id', 'usIn', 'usOut', 'usDiff', 'testnet']);
    const refused = await client.subscribe('book.BTC-PERPETUAL.raw', TICKER);
    assert.deepEqual(refused.error, { code: 13778, message: 'raw_subscriptions_not_available_for_unauthorized' });
    await until('frames', () => client.trades().length > 0 && client.book().length > 3);
    assert.deepEqual(client.of(TICKER), [], 'nothing of a refused request is served');
    assert.deepEqual((await client.call('unsubscribe', { channels: [TRADES, TICKER] })).result, [TRADES]);
    const told = client.trades().length;
    const changes = client.book().length;
    await until('more changes', () => client.book().length > changes + 3);
    assert.equal(client.trades().length, told);
    assert.equal((await client.call('unsubscribe_all')).result, 'ok');
  });

  it('answers errors by their codes', async () => {
    const client = await Client.open(await start());
    const code = async (method: string, params?: object) => (await client.call(method, params)).error?.code;
    assert.equal(await code('nothing_of_the_kind'), -32601);
    assert.equal(await code('subscribe', {}), -32602);
    assert.equal(await code('subscribe', { channels: [7] }), -32602);
    assert.equal(await code('set_heartbeat', { interval: 9 }), -32602);
    assert.equal(await code('ticker', { instrument_name: 'XYZ-PERPETUAL' }), 10020);
    client.socket.send('{');
    await until('parse error', () => client.answers().some(({ error }) => error?.code === -32700));
    client.socket.send('[]');
    await until('no request', () => client.answers().some(({ error }) => error?.code === -32600));
    assert.equal((await client.call('set_heartbeat', { interval: 10 })).result, 'ok');
    assert.equal(typeof (await client.call('get_time')).result, 'number');
    assert.ok((await client.call('test')).result && (await client.call('hello')).result);
    const list = (await client.call('get_instruments', { currency: 'BTC', kind: 'future' })).result;
    assert.deepEqual((list as { instrument_name: string }[])[0]?.instrument_name, 'BTC-PERPETUAL');
  });

  it('tests the connection when asked to, and closes it where no answer comes', async () => {
    const sim = await start({ heartbeat: { pingEveryMs: 80, pongWithinMs: 10_000 } });
    const [silent, lively] = [await Client.open(sim), await Client.open(sim)];
    lively.socket.on('message', (text: Buffer) => {
      if (text.includes('test_request'))
        lively.socket.send('{"jsonrpc":"2.0","id":0,"method":"public/test","params":{}}');
    });
    for (const client of [silent, lively]) await client.call('set_heartbeat', { interval: 10 });
    const beats = (type: string) => lively.texts.filter((text) => text.includes(`"type":"${type}"`)).length;
    await until('the silent one is closed', () => silent.closeCode !== null);
    await until('several heartbeats', () => beats('test_request') > 3 && beats('heartbeat') > 3);
    assert.equal(lively.closeCode, null);
    assert.equal(sim.ledger().closed_pong, 1);
  });

  it('refuses who asks too much, and closes the connection', async () => {
    const sim = await start();
    const client = await Client.open(sim);
    for (let asked = 0; asked < 30; asked++) void client.subscribe();
    await until('closed', () => client.closeCode !== null);
    assert.ok(client.answers().some(({ error }) => error?.code === 10028 && error.message === 'too_many_requests'));
    assert.equal(sim.ledger().closed_rate, 1);
    const { ask } = venueAt({});
    const answers = Array.from({ length: 101 }, () => ask('test'));
    assert.deepEqual([answers[99]?.status, answers[100]?.status, answers[100]?.error?.code], [200, 429, 10028]);
  });
});

describe('channels', () => {
  it('give every trade once, in frames, with contiguous sequences and numbers in the venue’s units', async () => {
    const sim = await start({ symbols: ['BTC-USDT', 'ETH-USDT', 'SOL-USDT'], tradesPerSecond: 200 });
    const client = await Client.open(sim);
    const cases = [
      ['BTC-USDT', 'BTC-PERPETUAL', 10, 0.5, /^\d+$/],
      ['ETH-USDT', 'ETH-PERPETUAL', 1, 0.05, /^ETH-\d+$/],
      ['SOL-USDT', 'SOL_USDC-PERPETUAL', 0.01, 0.001, /^USDC-\d+$/],
    ] as const;
    await client.subscribe(...cases.map(([, name]) => `trades.${name}.100ms`));
    await until('trades', () => cases.every(([, name]) => client.trades(`trades.${name}.100ms`).length > 60));
    sim.apply({ action: 'stop' });
    for (const [pair, name, size, tick, id] of cases) {
      const channel = `trades.${name}.100ms`;
      const { symbol, instrument } = deribitDerivatives.instrument(pair, 'perpetual');
      assert.equal(instrument, name);
      const sent = keys(sim, 'trade', symbol);
      await until('all arrived', () => client.trades(channel).length === sent.length);
      const told = client.trades(channel);
      assertSame(
        told.map(({ trade_seq }) => String(trade_seq)),
        sent,
        'keys',
      );
      const first = told[0]?.trade_seq as number;
      assertSame(
        told.map(({ trade_seq }) => trade_seq),
        told.map((_, place) => first + place),
        'contiguous',
      );
      assert.ok(
        client.of<TradeData[]>(channel).some((frame) => frame.length > 1),
        'several in a frame',
      );
      const whole = (value: number) => Math.abs(value - Math.round(value)) < 1e-6;
      for (const { trade_id, price, amount, contracts } of told) {
        assert.match(trade_id, id);
        assert.ok(whole(price / tick) && whole(amount / size) && whole(contracts), `${price} ${amount} ${contracts}`);
        assert.ok(Math.abs(contracts * size - amount) < 1e-9 * amount, 'contracts are amount ÷ size');
      }
      const path = `get_last_trades_by_instrument?instrument_name=${name}&start_seq=${first}&count=1000&sorting=asc`;
      const { trades } = await result<{ trades: TradeData[] }>(sim, path);
      const bare = (row: object) => Object.entries(row).filter(([member]) => !/^starbase|^liquid/.test(member));
      assertSame(told.map(bare), trades.map(bare), 'REST tells the same');
    }
    for (const text of client.texts) {
      assert.doesNotMatch(text, /"(price|amount|contracts|trade_seq)":"/);
      for (const [digits] of text.replace(/"starbase_timestamp":\d+|"us\w+":\d+/g, '').matchAll(/\d[\d.]*/g)) {
        assert.ok(digits.replace('.', '').length <= 15, digits);
      }
    }
  });

  it('give a book that chains and equals the one over REST, to each who joins', async () => {
    const sim = await start({ diffsPerSecond: 40 });
    const [early, late] = [await Client.open(sim), await Client.open(sim)];
    await early.subscribe(BOOK, 'book.BTC-PERPETUAL.agg2', 'book.BTC-PERPETUAL.none.10.100ms');
    await until('changes', () => early.book().length > 30);
    await late.subscribe(BOOK);
    await early.subscribe(BOOK);
    await until('changes of both', () => late.book().length > 10 && early.book('book.BTC-PERPETUAL.agg2').length > 2);
    await early.call('unsubscribe', { channels: [BOOK] });
    await early.subscribe(BOOK);
    await until('a new snapshot', () => early.book().filter(({ type }) => type === 'snapshot').length > 1);
    await until('more', () => early.book().at(-1)?.type === 'change');
    sim.apply({ action: 'stop' });
    type Whole = { change_id: number; bids: number[][]; asks: number[][] };
    const whole = await result<Whole>(sim, 'get_order_book?instrument_name=BTC-PERPETUAL&depth=10000');
    for (const [client, channel] of [
      [early, BOOK],
      [late, BOOK],
      [early, 'book.BTC-PERPETUAL.agg2'],
    ] as const) {
      await until('the last change', () => client.book(channel).at(-1)?.change_id === whole.change_id);
      const { id, bids, asks } = rebuilt(
        client.book(channel).filter((_, place, all) => {
          return place >= all.findLastIndex(({ type }) => type === 'snapshot');
        }),
      );
      assert.equal(id, whole.change_id);
      assertSame(bids, whole.bids, 'bids');
      assertSame(asks, whole.asks, 'asks');
      assert.ok(bids.length > 1000 && bids.every(([, amount]) => amount % 10 === 0), 'amounts in contracts of 10 USD');
    }
    const top = early.of<Whole & { type?: string }>('book.BTC-PERPETUAL.none.10.100ms').at(-1);
    assert.deepEqual([top?.bids, top?.type], [whole.bids.slice(0, 10), undefined]);
    assert.deepEqual(
      [late, early].map((client) => client.book().filter(({ type }) => type === 'snapshot').length),
      [1, 2],
    );
    const changes = [...early.book(), ...late.book()].filter(({ type }) => type === 'change');
    const ids = new Set(changes.map(({ change_id }) => String(change_id)));
    assert.deepEqual(new Set(keys(sim, 'orderbook_update')), ids, 'the ledger holds the changes, not the snapshots');
    assert.equal(keys(sim, 'orderbook_update').length, ids.size);
    assert.equal(sim.ledger().book_snapshots, 4);
  });

  it('give tickers and the volatility index, which REST tells too', async () => {
    const sim = await start();
    const client = await Client.open(sim);
    await client.subscribe(TICKER, 'deribit_volatility_index.btc_usd');
    type Index = { timestamp: number; volatility: number; index_name: string };
    const told = () => client.of<Index>('deribit_volatility_index.btc_usd');
    await until('readings', () => told().length > 1 && client.of(TICKER).length > 5);
    sim.apply({ action: 'stop' });
    const { reading_frames } = sim.ledger();
    await until('all arrived', () => told().length + client.of(TICKER).length === reading_frames);
    const ticker = await result<Record<string, number>>(sim, 'ticker?instrument_name=BTC-PERPETUAL');
    assert.deepEqual(Object.keys(client.of<object>(TICKER)[0] ?? {}), Object.keys(ticker));
    assert.ok(Math.abs((ticker.mark_price as number) / (ticker.index_price as number) - 1) < 0.001);
    assert.ok((ticker.open_interest as number) > 1e9 && (ticker.open_interest as number) % 10 === 0, 'USD');
    for (const { timestamp, volatility, index_name } of told()) {
      const path = `get_volatility_index_data?currency=BTC&start_timestamp=${timestamp}&end_timestamp=${timestamp}&resolution=1`;
      const { data } = await result<{ data: number[][] }>(sim, path);
      assert.deepEqual([data[0]?.[0], data[0]?.[4], index_name], [timestamp, volatility, 'btc_usd']);
    }
  });
});

describe('REST', () => {
  it('gives trades by sequence and by time, in the order that is asked for', () => {
    const { run, ask } = venueAt({});
    run(20_000);
    const page = (more: string) => {
      const asked = ask(`get_last_trades_by_instrument?instrument_name=BTC-PERPETUAL${more}`);
      return asked.result as { trades: TradeData[]; has_more: boolean };
    };
    const all = page('&count=1000&sorting=asc').trades;
    assert.ok(all.length > 200);
    const sequences = (more: string): [number[], boolean] => {
      const { trades, has_more } = page(more);
      return [trades.map(({ trade_seq }) => trade_seq), has_more];
    };
    const of = (from: number, to: number) => all.slice(from, to).map(({ trade_seq }) => trade_seq);
    const [fifth, ninth] = of(5, 10).filter((_, place) => place % 4 === 0);
    assert.deepEqual(sequences(''), [of(-10, all.length).reverse(), true]);
    assert.deepEqual(sequences(`&start_seq=${fifth}&end_seq=${ninth}&sorting=asc`), [of(5, 10), false]);
    assert.deepEqual(sequences(`&start_seq=${fifth}&count=3`), [of(5, 8), true]);
    assert.deepEqual(sequences(`&end_seq=${ninth}&count=2&sorting=desc`), [of(8, 10).reverse(), true]);
    assert.deepEqual(sequences('&start_seq=1&end_seq=5'), [[], false], 'what is too old comes back empty');
    const [from, to] = [all[50]?.timestamp as number, all[99]?.timestamp as number];
    const timed = all.filter(({ timestamp }) => timestamp >= from && timestamp <= to);
    assert.deepEqual(page(`&start_timestamp=${from}&end_timestamp=${to}&count=1000&sorting=asc`).trades, timed);
    const byTime = 'get_last_trades_by_instrument_and_time?instrument_name=BTC-PERPETUAL';
    const answer = ask(`${byTime}&start_timestamp=${from}&end_timestamp=${to}&count=1000&sorting=asc`).result;
    assert.deepEqual((answer as { trades: TradeData[] }).trades, timed);
    assert.equal(ask(byTime).error?.data?.param, 'start_timestamp');
    const tooMany = ask('get_last_trades_by_instrument?instrument_name=BTC-PERPETUAL&count=1001');
    assert.deepEqual([tooMany.status, tooMany.error?.code, tooMany.error?.data?.param], [400, -32602, 'count']);
  });

  it('flags liquidations late, always the same, and the ledger names those that were told', () => {
    const { run, ask, wire, now } = venueAt({ liquidationsPerMinute: 60, tradesPerSecond: 10 });
    const read = () => {
      const asked = ask('get_last_trades_by_instrument?instrument_name=BTC-PERPETUAL&count=1000&sorting=asc');
      return (asked.result as { trades: TradeData[] }).trades;
    };
    const told = () => [
      ...(wire.ledger.find({ exchange: EXCHANGE, symbol: SYMBOL, data_type: 'liquidation' })?.keyLines() ?? []),
    ];
    run(LIQUIDATION_DELAY_MS - 10);
    assert.ok(read().length > 20 && read().every(({ liquidation }) => liquidation === undefined));
    assert.deepEqual(told(), []);
    run(55_000);
    const flagged = read().filter(({ liquidation }) => liquidation !== undefined);
    assert.ok(flagged.length > 30 && flagged.length < 90, `${flagged.length} in 55 s at one a second`);
    assert.deepEqual(new Set(flagged.map(({ liquidation }) => liquidation)), new Set(['M', 'T', 'MT']));
    assert.ok(flagged.every(({ timestamp }) => now() - timestamp >= LIQUIDATION_DELAY_MS));
    assert.deepEqual(
      told().map((line) => line.trim()),
      flagged.map(({ trade_id }) => trade_id),
    );
    run(LIQUIDATION_DELAY_MS);
    const later = read().filter(({ liquidation }) => liquidation !== undefined);
    assert.deepEqual(later.slice(0, flagged.length), flagged);
    assert.ok(later.length > flagged.length);
    assert.equal(told().length, later.length, 'each counts once');
  });

  it('pages candles of the volatility index by their continuation, and lists instruments and funding', () => {
    const { ask, now } = venueAt({ symbols: ['BTC-USDT', 'ETH-USDT', 'SOL-USDT'] });
    const from = now() - 2500 * 60_000;
    const starts: number[] = [];
    let to: number | null = now();
    for (let pages = 0; to !== null; pages++) {
      assert.ok(pages < 4, 'paging ends');
      const asked: Answer = ask(
        `get_volatility_index_data?currency=ETH&start_timestamp=${from}&end_timestamp=${to}&resolution=60`,
      );
      const { data, continuation } = asked.result as { data: number[][]; continuation: number | null };
      starts.unshift(...data.map(([at]) => at as number));
      for (const [, open = 0, high = 0, low = 0, close = 0] of data) {
        assert.ok(low <= Math.min(open, close) && high >= Math.max(open, close) && low > 20 && high < 90);
      }
      to = continuation;
    }
    assertSame(
      starts,
      Array.from({ length: 2501 }, (_, place) => from + place * 60_000),
      'a candle a minute',
    );
    for (const wrong of ['currency=XYZ&resolution=60', 'currency=BTC&resolution=61']) {
      assert.equal(ask(`get_volatility_index_data?start_timestamp=1&end_timestamp=2&${wrong}`).error?.code, -32602);
    }
    const names = (query: string) =>
      (ask(`get_instruments?${query}`).result as { instrument_name: string }[]).map((each) => each.instrument_name);
    assert.deepEqual(names('currency=any&kind=future&expired=false'), [
      'BTC-PERPETUAL',
      'ETH-PERPETUAL',
      'SOL_USDC-PERPETUAL',
    ]);
    assert.deepEqual([names('currency=USDC'), names('currency=BTC&kind=option')], [['SOL_USDC-PERPETUAL'], []]);
    const funding = ask(
      `get_funding_rate_history?instrument_name=BTC-PERPETUAL&start_timestamp=${now() - 3 * HOUR_MS}&end_timestamp=${now()}`,
    ).result as { timestamp: number }[];
    assert.deepEqual(
      funding.map(({ timestamp }) => (now() - timestamp) / HOUR_MS),
      [3, 2, 1, 0],
    );
  });
});

describe('faults', () => {
  it('drop, repeat and swap whole frames, and account for each trade in them', async () => {
    const sim = await start({ tradesPerSecond: 200 });
    const client = await Client.open(sim);
    await client.subscribe(TRADES, BOOK);
    await until('a start', () => client.trades().length > 20 && client.book().length > 3);
    const target = { exchange: EXCHANGE, symbol: SYMBOL };
    sim.apply({ action: 'drop', ...target, data_type: 'trade', count: 2 });
    sim.apply({ action: 'drop', ...target, data_type: 'orderbook_update' });
    const dropped = (type: string) => sim.ledger().streams.find((each) => each.data_type === type)?.dropped ?? 0;
    await until('drops', () => dropped('trade') > 2 && breaks(client.book()) === 1);
    sim.apply({ action: 'repeat', ...target, data_type: 'trade' });
    sim.apply({ action: 'reorder', ...target, data_type: 'orderbook_update' });
    await until('done', () => sim.ledger().repeated === 1 && sim.ledger().reordered === 1);
    sim.apply({ action: 'stop' });
    const sent = new Set(keys(sim, 'trade'));
    await until('all arrived', () => new Set(client.trades().map(({ trade_seq }) => trade_seq)).size === sent.size);
    const sequences = client.trades().map(({ trade_seq }) => trade_seq);
    assert.ok(sequences.length > sent.size, 'repeated ones arrived twice');
    assert.equal(
      Math.max(...sequences) - Math.min(...sequences) + 1,
      sent.size + dropped('trade'),
      'nothing else is missing',
    );
    const changesOf = () => client.book().filter(({ type }) => type === 'change');
    await until('all changes arrived', () => changesOf().length >= keys(sim, 'orderbook_update').length);
    const changes = changesOf();
    assert.equal(changes.length, keys(sim, 'orderbook_update').length);
    assert.ok(
      changes.some((each, place) => each.change_id < (changes[place - 1]?.change_id ?? 0)),
      'one came late',
    );
  });

  it('silence one type of one symbol, and leave the other ones', async () => {
    const sim = await start({ symbols: ['BTC-USDT', 'ETH-USDT'], tradesPerSecond: 100 });
    const client = await Client.open(sim);
    await client.subscribe(TRADES, BOOK, 'trades.ETH-PERPETUAL.100ms');
    await until('a start', () => client.trades().length > 0);
    sim.apply({ action: 'silence', exchange: EXCHANGE, symbol: SYMBOL, data_type: 'trade', seconds: 3600 });
    const before = keys(sim, 'trade').length;
    const [others, changes] = [keys(sim, 'trade', 'ETH-USD').length, client.book().length];
    await until(
      'others go on',
      () => keys(sim, 'trade', 'ETH-USD').length > others + 50 && client.book().length > changes + 3,
    );
    assert.equal(keys(sim, 'trade').length, before);
  });

  it('acknowledge without serving until it is asked anew; give notice, garbage, and cut the line', async () => {
    const sim = await start();
    const client = await Client.open(sim);
    sim.apply({ action: 'ack_silent', exchange: EXCHANGE });
    assert.deepEqual((await client.subscribe(BOOK)).result, [BOOK]);
    await client.subscribe(TRADES);
    await until('the other one', () => client.trades().length > 3);
    assert.deepEqual(client.book(), []);
    assert.deepEqual((await client.call('unsubscribe', { channels: [BOOK] })).result, [BOOK]);
    await client.subscribe(BOOK);
    await until('a snapshot', () => client.book()[0]?.type === 'snapshot');
    sim.apply({ action: 'shutdown_notice', exchange: EXCHANGE });
    await until('the notice', () => client.texts.some((text) => text.includes('"maintenance":true')));
    const feed = feedHarness(deribitDerivatives, 1);
    const before = client.texts.length;
    sim.apply({ action: 'garbage', exchange: EXCHANGE, count: 5 });
    await until('garbage', () => client.texts.some((text) => text.startsWith('<html>')));
    for (const text of client.texts.slice(before)) feed.frame(text);
    assert.equal(feed.told('rejected').length, 5, 'the collector’s feed refuses each');
    sim.apply({ action: 'close', exchange: EXCHANGE, code: 1001 });
    await until('closed', () => client.closeCode === 1001);
  });

  it('refuse over REST with the venue’s shapes', async () => {
    const sim = await start();
    const seen: [number, string][] = [];
    for (const status of [429, 418, 403] as const) {
      sim.apply({ action: 'rest', exchange: EXCHANGE, status, retry_after: 7 });
      const { status: got, body, headers } = await get(sim, 'test');
      seen.push([got, status === 403 ? (headers.get('content-type') ?? '') : JSON.parse(body).error.message]);
    }
    assert.deepEqual(seen, [
      [429, 'too_many_requests'],
      [418, 'too_many_requests'],
      [403, 'text/html'],
    ]);
    assert.equal((await get(sim, 'test')).status, 200);
  });

  it('stop with book and last change at one id, and start again in the same chain', async () => {
    const sim = await start();
    const client = await Client.open(sim);
    await client.subscribe(TRADES, BOOK);
    await until('a start', () => client.book().length > 5 && client.trades().length > 5);
    sim.apply({ action: 'stop' });
    const { change_id } = await result<BookData>(sim, 'get_order_book?instrument_name=BTC-PERPETUAL');
    await until('the last change', () => client.book().at(-1)?.change_id === change_id);
    const [newest] = (
      await result<{ trades: TradeData[] }>(sim, 'get_last_trades_by_instrument?instrument_name=BTC-PERPETUAL')
    ).trades;
    await until('the last trade', () => client.trades().at(-1)?.trade_seq === newest?.trade_seq);
    sim.apply({ action: 'start' });
    const told = client.book().length;
    await until(
      'it goes on',
      () => client.book().length > told + 3 && client.trades().at(-1)?.trade_seq !== newest?.trade_seq,
    );
    assert.equal(breaks(client.book()), 0);
  });
});
