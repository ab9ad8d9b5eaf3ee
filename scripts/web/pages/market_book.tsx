/** The order book of a market now: its best prices, and how much lies up to each level. */
import { useMemo } from 'preact/hooks';
import type { Depth, DepthBook } from '../../lib/web/market_depth.ts';
import { Chart } from '../ui/chart.tsx';
import { type Data, useData, withQuery } from '../ui/data.ts';
import { figure, fixed, span } from '../ui/format.ts';
import { Badge, Card, Empty, Figure, Figures, Loaded, Time } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import { bookPlugin } from './market_draw.ts';
import { coinsOf, digitsOf, type MarketName, nameOf, padded } from './market_words.ts';

const TEXT = texts({
  title: ['Order book', '订单簿'],
  bid: ['Best bid', '买一'],
  bidPrice: ['Bid', '买价'],
  askPrice: ['Ask', '卖价'],
  ask: ['Best ask', '卖一'],
  spread: ['Spread', '价差'],
  mid: ['Mid', '中间价'],
  age: ['Age of the book', '订单簿时龄'],
  of: ['Of', '时间'],
  bids: ['Bids up to here', '买盘累计'],
  asks: ['Asks up to here', '卖盘累计'],
  price: ['Price', '价格'],
  quantity: ['Quantity', '数量'],
  total: ['Total', '累计'],
  chart: ['Quantity up to each price', '各价位累计数量'],
  levels: ['levels a side', '档（每侧）'],
  cut: ['Fewer levels are known than were asked for', '已知档位少于所请求的'],
  old: ['This book is old: nothing newer has come', '订单簿已陈旧：没有更新到达'],
  none: [
    'No order book of this market is known in the last hour. collector.ts and store.ts write them.',
    '最近一小时没有该市场的订单簿。由 collector.ts 与 store.ts 写入。',
  ],
  missing_updates: ['Updates are missing: this is the book of before', '缺少增量：此为缺失之前的订单簿'],
  crossed: ['An update crossed the book: this is the one of before', '增量使订单簿交叉：此为之前的订单簿'],
  ids_restarted: ['The venue counts its updates anew', '交易所重新编号'],
  too_shallow: ['The market left the levels that are known', '市场已越出已知档位'],
  too_long: ['Too many updates since the last whole book', '距上一份完整订单簿的增量过多'],
});

const EVERY_MS = 2000;
const DEPTH = 100;
const ROWS = 10;
/** A whole book comes each ten seconds, changes many a second: beyond this something is wrong, ms. */
const OLD_MS = 30_000;

export function useDepth(symbol: string, { exchange, market_type }: MarketName): Data<Depth> {
  return useData<Depth>(withQuery('/api/market/depth', { symbol, exchange, market_type, depth: DEPTH }), EVERY_MS);
}

export function BookCard({ symbol, market, depth }: { symbol: string; market: MarketName; depth: Data<Depth> }) {
  return (
    <Card title={`${TEXT.title} · ${DEPTH} ${TEXT.levels}`}>
      <Loaded data={depth}>
        {({ book }) =>
          book === null ? (
            <Empty>{TEXT.none}</Empty>
          ) : (
            <Book key={`${symbol} ${nameOf(market)}`} {...{ symbol, book }} />
          )
        }
      </Loaded>
    </Card>
  );
}

function Book({ symbol, book }: { symbol: string; book: DepthBook }) {
  const { bids, asks, age_ms: age, reason, cut } = book;
  const { base } = coinsOf(symbol);
  const digits = digitsOf([...bids, ...asks].map(({ price }) => price));
  const isOld = age > OLD_MS;
  return (
    <>
      <Figures>
        <Figure label={TEXT.bid} value={padded(book.best_bid, digits)} name="best_bid" tone="up" />
        <Figure label={TEXT.ask} value={padded(book.best_ask, digits)} name="best_ask" tone="down" />
        <Figure
          label={TEXT.spread}
          value={`${padded(book.spread, digits)} · ${fixed(book.spread_bps === null ? null : Number(book.spread_bps), 2)} bp`}
          name="spread"
        />
        <Figure label={TEXT.age} value={span(age)} name="book_age" tone={isOld ? 'bad' : undefined} />
      </Figures>
      <p class="note">
        {TEXT.of} <Time ms={book.time} detail="millisecond" /> {isOld ? <Badge tone="bad">{TEXT.old}</Badge> : null}{' '}
        {reason === null || reason === 'not_known_yet' ? null : <Badge tone="warn">{TEXT[reason]}</Badge>}{' '}
        {cut ? <Badge tone="plain">{TEXT.cut}</Badge> : null}
      </p>
      <DepthChart {...{ book, base, digits }} />
      <Ladder {...{ book, digits }} />
    </>
  );
}

const PLUGINS = [bookPlugin({ price: () => TEXT.price })];

function DepthChart({ book: { bids, asks }, base, digits }: { book: DepthBook; base: string; digits: number }) {
  const { prices, bought, sold } = useMemo(() => {
    const below = [...bids].reverse();
    return {
      prices: [...below, ...asks].map(({ price }) => Number(price)),
      bought: [...below.map(({ total }) => Number(total)), ...asks.map(() => null)],
      sold: [...bids.map(() => null), ...asks.map(({ total }) => Number(total))],
    };
  }, [bids, asks]);
  return (
    <>
      <p class="unit">
        {TEXT.chart}, {base}
      </p>
      <Chart
        {...{ label: `${TEXT.chart} (${base})`, times: prices, height: 190, plugins: PLUGINS, least: [0, 0] }}
        key={digits}
        series={[
          { label: `${TEXT.bids} ${base}`, values: bought, kind: 'steps', colour: 3, format: figure },
          { label: `${TEXT.asks} ${base}`, values: sold, kind: 'steps', colour: 4, format: figure },
        ]}
      />
    </>
  );
}

/** The first levels, side by side. */
function Ladder({ book: { bids, asks }, digits }: { book: DepthBook; digits: number }) {
  const rows = Array.from({ length: Math.min(ROWS, Math.max(bids.length, asks.length)) }, (_, i) => i);
  const quantities = digitsOf(
    [...bids.slice(0, ROWS), ...asks.slice(0, ROWS)].flatMap(({ quantity, total }) => [quantity, total]),
  );
  const cell = (text: string | undefined, places: number) => padded(text ?? null, places);
  return (
    <section class="table ladder" aria-label={TEXT.title}>
      <table>
        <thead>
          <tr>
            {[TEXT.total, TEXT.quantity, TEXT.bidPrice, TEXT.askPrice, TEXT.quantity, TEXT.total].map((title, i) => (
              <th key={`${i}`} scope="col" class={i < 3 ? 'number' : undefined}>
                {title}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((i) => (
            <tr key={i}>
              <td class="number plain">{cell(bids[i]?.total, quantities)}</td>
              <td class="number">{cell(bids[i]?.quantity, quantities)}</td>
              <td class="number up">{cell(bids[i]?.price, digits)}</td>
              <td class="down">{cell(asks[i]?.price, digits)}</td>
              <td>{cell(asks[i]?.quantity, quantities)}</td>
              <td class="plain">{cell(asks[i]?.total, quantities)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
