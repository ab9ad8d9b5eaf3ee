/** The last trades of a market as they come, and how the line stands on which they come. */
import type { Data } from '../ui/data.ts';
import { figure, time } from '../ui/format.ts';
import { Badge, Card, Loaded, Table, type Tone } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import { type LineState, type Live, type LiveTrade, newestTrades } from './market_live.ts';
import { coinsOf, digitsOf, padded } from './market_words.ts';

const TEXT = texts({
  title: ['Last trades', '最新成交'],
  time: ['Time', '时间'],
  price: ['Price', '价格'],
  quantity: ['Quantity', '数量'],
  side: ['Taker', '主动方'],
  buy: ['buys', '买'],
  sell: ['sells', '卖'],
  connecting: ['connecting', '连接中'],
  here: ['live', '实时'],
  away: ['the broker is away', '消息服务不可用'],
  broken: ['line lost, trying again', '连接中断，正在重试'],
  silent: ['nothing is heard', '无心跳'],
  dropped: ['dropped on the way to this page', '条在传送至本页途中被丢弃'],
  losses: ['times the line was lost', '次连接中断'],
  missed: [
    'Trades may have been missed just now; the list is filled from the database.',
    '刚才可能漏收成交；列表正由数据库补全。',
  ],
  empty: [
    'No trade in the last hour. collector.ts and store.ts write them.',
    '最近一小时没有成交。成交由 collector.ts 与 store.ts 写入。',
  ],
});

const TONES: Record<LineState, Tone> = {
  connecting: 'plain',
  here: 'good',
  away: 'bad',
  broken: 'bad',
  silent: 'warn',
};
/** What came this long before the database was asked is stored by then, ms. */
const STORED_MS = 3000;

export interface TradeList {
  data: LiveTrade[];
}

interface TradesProps {
  symbol: string;
  stored: Data<TradeList>;
  live: Live;
}

export function TradesCard({ symbol, stored, live }: TradesProps) {
  const { base } = coinsOf(symbol);
  // What was missed is there again once the database was asked late enough after it.
  const isMissing = live.missedAt !== null && (stored.at === null || stored.at < live.missedAt + STORED_MS);
  return (
    <Card title={TEXT.title} actions={<Line live={live} />}>
      {isMissing ? <p class="note warn">{TEXT.missed}</p> : null}
      <Loaded data={stored}>
        {({ data }) => {
          const trades = newestTrades(data, live.trades);
          const digits = digitsOf(trades.map(({ price }) => price));
          const places = digitsOf(trades.map(({ quantity }) => quantity));
          return (
            <div class="trades">
              <Table
                label={TEXT.title}
                rows={trades}
                keyOf={({ trade_id }) => trade_id}
                empty={TEXT.empty}
                columns={[
                  { title: TEXT.time, cell: ({ timestamp }) => <Clock ms={timestamp} /> },
                  {
                    ...{ title: TEXT.price, isNumber: true, tone: ({ side }: LiveTrade) => toneOf(side) },
                    cell: ({ price }) => padded(price, digits),
                  },
                  {
                    ...{ title: `${TEXT.quantity}, ${base}`, isNumber: true },
                    cell: ({ quantity }) => padded(quantity, places),
                  },
                  { title: TEXT.side, cell: ({ side }) => TEXT[side], tone: ({ side }) => toneOf(side) },
                ]}
              />
            </div>
          );
        }}
      </Loaded>
    </Card>
  );
}

const toneOf = (side: 'buy' | 'sell'): Tone => (side === 'buy' ? 'up' : 'down');

/** The time of day is enough in a list of minutes; who points at it sees the day. */
function Clock({ ms }: { ms: number }) {
  const text = time(ms, 'millisecond');
  return (
    <time dateTime={new Date(ms).toISOString()} title={text}>
      {text.slice(11)}
    </time>
  );
}

function Line({ live: { state, dropped, losses } }: { live: Live }) {
  return (
    <span class="line" role="status">
      <span data-figure="line_state" data-state={state}>
        <Badge tone={TONES[state]}>{TEXT[state]}</Badge>
      </span>
      <span class={dropped > 0 ? 'warn' : 'plain'}>
        <span data-figure="line_dropped">{figure(dropped)}</span> {TEXT.dropped}
      </span>
      {losses === 0 ? null : (
        <span class="warn">
          <span data-figure="line_losses">{figure(losses)}</span> {TEXT.losses}
        </span>
      )}
    </span>
  );
}
