/** A recorded session of Deribit over the simulator: as it was recorded, with its chain of ids whole in the collector's feed. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { deribitDerivatives } from '../scripts/exchanges/deribit.ts';
import { breaks, Client, EXCHANGE, get, rebuilt, result, start } from './deribit_client.ts';
import { feedHarness } from './feed_harness.ts';
import { missing, SHARED } from './fixtures.ts';
import { assertSame, until } from './sim_client.ts';

const SESSION = join(SHARED, 'cryptofeed', 'deribit', 'DERIBIT.ws.1.0');

describe('a recorded session', { skip: missing(SESSION) }, () => {
  const recorded = missing(SESSION)
    ? []
    : readFileSync(SESSION, 'utf8')
        .split('\n')
        .flatMap((line) => /^\d+\.\d+: (.*"subscription".*)$/.exec(line)?.[1] ?? []);
  const channels = [...new Set(recorded.map((text) => JSON.parse(text).params.channel as string))];
  const replayed = (replay: object = {}) => start({ replays: [{ exchange: EXCHANGE, file: SESSION, ...replay }] });
  const frames = (client: Client) => client.texts.filter((text) => text.includes('"subscription"'));

  it('goes out as recorded, or under the channel’s other name, with its lists; then there is silence', async () => {
    const sim = await replayed();
    const [raw, named] = [await Client.open(sim), await Client.open(sim)];
    assert.deepEqual((await raw.subscribe(...channels, 'book.NONE.raw')).result, channels);
    await named.subscribe(...channels.map((name) => name.replace('.raw', '.100ms')));
    await until('the end', () => sim.ledger().replay_done === true && frames(named).length === recorded.length);
    assertSame(frames(raw), recorded, 'as recorded');
    assertSame(
      frames(named),
      recorded.map((text) => text.replace('.raw"', '.100ms"')),
      'renamed',
    );
    const feed = feedHarness(deribitDerivatives, 1);
    const path = '/api/v2/public/get_instruments?currency=any&kind=option&expired=false';
    feed.rest(path, JSON.parse((await get(sim, path.slice(15))).body));
    for (const text of frames(named)) feed.frame(text);
    const changes = feed.of('orderbook_update').filter(({ is_snapshot }) => !is_snapshot);
    const sent = sim.ledger().streams.filter(({ data_type }) => data_type === 'orderbook_update');
    assert.deepEqual([changes.length, sent.reduce((sum, each) => sum + each.sent, 0)], [36, 36]);
    assert.deepEqual([feed.told('resync'), feed.told('rejected'), sim.ledger().book_snapshots], [[], [], 10]);
    assert.deepEqual([raw.closeCode, named.closeCode], [null, null]);
  });

  it('leaves a change out, and gives who subscribes anew a book that has it', async () => {
    const sim = await replayed({ dropDiff: 2, speed: 20 });
    const client = await Client.open(sim);
    const channel = 'book.BTC-24SEP21-8000-P.100ms';
    await client.subscribe(channel, 'ticker.BTC-24SEP21-8000-P.100ms');
    await until('the end', () => sim.ledger().replay_done === true);
    assert.equal(breaks(client.book(channel)), 1);
    await client.call('unsubscribe', { channels: [channel] });
    await client.subscribe(channel);
    await until('a snapshot', () => client.book(channel).at(-1)?.type === 'snapshot');
    const whole = await result<{ change_id: number; bids: number[][]; asks: number[][] }>(
      sim,
      'get_order_book?instrument_name=BTC-24SEP21-8000-P&depth=1000',
    );
    const { id, bids, asks } = rebuilt(client.book(channel).slice(-1));
    assert.deepEqual([id, bids, asks], [whole.change_id, whole.bids, whole.asks]);
    assert.equal(
      sim.ledger().streams.reduce((sum, each) => sum + each.dropped, 0),
      1,
    );
  });
});
