/** A symbol over time and now: its price on a market, the book, the last trades, and what else is told of it. */
import { useEffect, useState } from 'preact/hooks';
import type { MarketSymbols } from '../../lib/web/market_symbols.ts';
import { useChoice, useData, withQuery } from '../ui/data.ts';
import { UNKNOWN } from '../ui/format.ts';
import { Choice, Empty, Figure, Figures, Loaded, Select, Time } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import { BookCard, useDepth } from './market_book.tsx';
import { CandlesCard } from './market_candles.tsx';
import { type LiveTrade, MOST_TRADES, newestTrades, useLive } from './market_live.ts';
import { RANGES, type Range } from './market_ranges.ts';
import { Readings } from './market_readings.tsx';
import { type TradeList, TradesCard } from './market_trades.tsx';
import { digitsOf, type MarketName, nameOf, padded, titleOf } from './market_words.ts';
import './market.css';

const TEXT = texts({
  symbol: ['Symbol', '交易对'],
  market: ['Market', '市场'],
  range: ['Range', '范围'],
  beside: ['Beside it', '对比'],
  nothing: ['nothing', '无'],
  last: ['Last price', '最新价'],
  at: ['Last trade', '最新成交时间'],
  none: [
    'The database has no symbol yet. collector.ts receives them and store.ts writes them: are both running?',
    '数据库中尚无交易对。由 collector.ts 接收、store.ts 写入：两者是否在运行？',
  ],
  unknown: [
    'The database has nothing of this symbol. collector.ts receives those that MARKETPRISM_SYMBOLS names. Choose one of those that are there:',
    '数据库中没有该交易对。collector.ts 只接收 MARKETPRISM_SYMBOLS 中列出的交易对。请选择已有的：',
  ],
  more: ['There are more symbols than are listed here.', '交易对过多，此处未全部列出。'],
});

const SYMBOLS_MS = 15_000;
/** What the line may have missed is there again after this, ms. */
const STORED_MS = 10_000;
const PATH = '/market';

type Entry = MarketSymbols['symbols'][number];
type Market = Entry['markets'][number];

/** The symbol of the address; null: none. */
function symbolHere(): string | null {
  const name = location.pathname.slice(PATH.length + 1);
  return name === '' ? null : decodeURIComponent(name);
}

function useSymbol(): [string | null, (symbol: string) => void] {
  const [symbol, setSymbol] = useState(symbolHere);
  useEffect(() => {
    const look = () => setSymbol(symbolHere());
    addEventListener('popstate', look);
    return () => removeEventListener('popstate', look);
  }, []);
  const choose = (next: string) => {
    history.pushState(null, '', `${PATH}/${encodeURIComponent(next)}${location.search}`);
    setSymbol(next);
  };
  return [symbol, choose];
}

export function MarketPage() {
  const [asked, choose] = useSymbol();
  const data = useData<MarketSymbols>('/api/market/symbols', SYMBOLS_MS);
  return (
    <Loaded data={data}>
      {({ symbols, more }) => {
        // Without a name the one that most markets have.
        const first = [...symbols].sort((a, b) => b.markets.length - a.markets.length)[0];
        const entry = asked === null ? first : symbols.find(({ symbol }) => symbol === asked);
        const names = symbols.map(({ symbol }) => symbol);
        if (symbols.length === 0) return <Empty>{TEXT.none}</Empty>;
        if (entry === undefined)
          return (
            <>
              <Empty>{TEXT.unknown}</Empty>
              <Select label={TEXT.symbol} choices={['', ...names]} chosen="" onChoose={choose} />
            </>
          );
        return (
          <>
            {more ? <p class="note">{TEXT.more}</p> : null}
            <SymbolView key={entry.symbol} {...{ entry, names, choose }} />
          </>
        );
      }}
    </Loaded>
  );
}

interface SymbolProps {
  entry: Entry;
  names: string[];
  choose(symbol: string): void;
}

function SymbolView({ entry: { symbol, markets }, names, choose }: SymbolProps) {
  const choices = markets.map(nameOf);
  const [range, setRange] = useChoice<Range>('range', RANGES, '24h');
  const [chosen, setMarket] = useChoice('market', choices, choices[0]!);
  const [other, setOther] = useChoice('beside', ['', ...choices], '');
  // A market whose rows have expired meanwhile.
  const market = markets.find((each) => nameOf(each) === chosen) ?? markets[0]!;
  const beside = markets.find((each) => nameOf(each) === other && other !== chosen) ?? null;
  return (
    <>
      <div class="bar">
        <Select label={TEXT.symbol} choices={names} chosen={symbol} onChoose={choose} />
        <Choice label={TEXT.range} choices={RANGES} chosen={range} onChoose={setRange} />
        {markets.length < 2 ? null : (
          <Select
            label={TEXT.beside}
            choices={['', ...choices.filter((each) => each !== nameOf(market))]}
            chosen={beside === null ? '' : other}
            name={(each) => (each === '' ? TEXT.nothing : each.replace('.', ' '))}
            onChoose={setOther}
          />
        )}
      </div>
      <MarketChoice {...{ markets, chosen: nameOf(market), choose: setMarket }} />
      <MarketView key={nameOf(market)} {...{ symbol, market, range, beside }} />
    </>
  );
}

/** The markets that have the symbol, each with its last trade. */
function MarketChoice(props: { markets: Market[]; chosen: string; choose(name: string): void }) {
  const { markets, chosen, choose } = props;
  return (
    <fieldset class="markets">
      <legend>{TEXT.market}</legend>
      {markets.map((each) => (
        <button
          type="button"
          key={nameOf(each)}
          aria-pressed={nameOf(each) === chosen}
          onClick={() => choose(nameOf(each))}
        >
          <span>{titleOf(each)}</span>
          <b data-figure={`last.${nameOf(each)}`}>{padded(each.last_trade?.price, 0)}</b>
          <small>{each.last_trade === null ? UNKNOWN : <Time ms={each.last_trade.time} />}</small>
        </button>
      ))}
    </fieldset>
  );
}

interface ViewProps {
  symbol: string;
  market: MarketName;
  range: Range;
  beside: MarketName | null;
}

function MarketView({ symbol, market, range, beside }: ViewProps) {
  const { exchange, market_type } = market;
  const live = useLive(symbol, exchange, market_type);
  const depth = useDepth(symbol, market);
  const asked = { symbol, exchange, market_type, order: 'desc', limit: MOST_TRADES };
  const stored = useData<TradeList>(withQuery('/api/market/trades', asked), STORED_MS);
  // What is seen first is asked for first.
  const isFirstSeen = stored.at !== null || stored.error !== null;
  const trades = newestTrades(stored.value?.data ?? [], live.trades);
  const [last] = trades;
  const digits = digitsOf(trades.map(({ price }) => price));
  return (
    <>
      <CandlesCard
        key={range}
        {...{ symbol, market, range, other: beside }}
        actions={<LastTrade {...{ last, digits }} />}
      />
      <div class="grid now">
        <BookCard {...{ symbol, market, depth }} />
        <TradesCard {...{ symbol, stored, live }} />
      </div>
      {isFirstSeen ? <Readings key={range} {...{ symbol, range }} /> : null}
    </>
  );
}

function LastTrade({ last, digits }: { last: LiveTrade | undefined; digits: number }) {
  const tone = last === undefined ? undefined : last.side === 'buy' ? 'up' : 'down';
  return (
    <Figures>
      <Figure label={TEXT.last} value={padded(last?.price, digits)} name="last_price" tone={tone} />
      <Figure label={TEXT.at} value={<Time ms={last?.timestamp} detail="millisecond" />} name="last_time" />
    </Figures>
  );
}
