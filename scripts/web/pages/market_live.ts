/** Trades as they come, and how the line stands on which they come. */
import { useEffect, useRef, useState } from 'preact/hooks';

/** More are not shown. */
export const MOST_TRADES = 50;
/** A heartbeat comes each 5 s: without three of them the line is dead, though nobody closed it. */
const SILENT_MS = 16_000;
/** A busy market trades faster than anybody reads; so often the list is drawn anew, ms. */
const DRAWN_MS = 250;

/** A browser gives up a line that was refused, as when too many listen; then it is tried again after this, ms. */
const RETRY_MS = 5000;

/** here: the broker's rows come; away: the service has no broker; broken, silent: the service is not heard. */
export type LineState = 'connecting' | 'here' | 'away' | 'broken' | 'silent';

export interface LiveTrade {
  exchange: string;
  market_type: string;
  trade_id: string;
  /** Event time, ms. */
  timestamp: number;
  price: string;
  quantity: string;
  side: 'buy' | 'sell';
}

export interface Live {
  state: LineState;
  /** The newest ones, in the order in which they came. */
  trades: readonly LiveTrade[];
  /** Rows that there was no room for on the way to this page. */
  dropped: number;
  /** How often the line was lost. */
  losses: number;
  /** When rows may have been missed last, ms by this machine's clock; null: never. */
  missedAt: number | null;
}

const NOTHING: Live = { state: 'connecting', trades: [], dropped: 0, losses: 0, missedAt: null };

/** Listens to the trades of one stream, as long as the page is there. */
export function useLive(symbol: string, exchange: string, marketType: string): Live {
  const [live, setLive] = useState<Live>(NOTHING);
  const now = useRef<Live>(NOTHING);
  useEffect(() => {
    now.current = NOTHING;
    let [heardAt, isDrawn] = [Date.now(), true];
    const change = (changed: Partial<Live>) => {
      now.current = { ...now.current, ...changed };
      isDrawn = false;
    };
    /** From a state in which rows came into one in which they do not. */
    const lose = (state: LineState) => {
      const { state: before, losses } = now.current;
      if (before === state) return;
      change(before === 'here' ? { state, losses: losses + 1, missedAt: Date.now() } : { state });
    };
    const take: Record<string, (data: unknown) => void> = {
      trade(data) {
        const trade = data as LiveTrade;
        if (trade.exchange !== exchange || trade.market_type !== marketType) return;
        change({ trades: [...now.current.trades, trade].slice(-MOST_TRADES) });
      },
      broker(data) {
        const { state } = data as { state: 'connecting' | 'here' | 'away' };
        if (state === 'here') change({ state, ...(now.current.losses > 0 ? { missedAt: Date.now() } : {}) });
        else lose(state);
      },
      dropped(data) {
        const { count } = data as { count: number };
        change({ dropped: now.current.dropped + count, missedAt: Date.now() });
      },
      heartbeat() {
        if (now.current.state === 'silent') change({ state: 'here', missedAt: Date.now() });
      },
      end: () => lose('broken'),
    };
    const open = () => {
      const source = new EventSource(`/api/live?${new URLSearchParams({ symbols: symbol, types: 'trade' })}`);
      heardAt = Date.now();
      source.onerror = () => lose('broken');
      for (const [name, of] of Object.entries(take)) {
        source.addEventListener(name, (event) => {
          heardAt = Date.now();
          of(JSON.parse((event as MessageEvent<string>).data));
        });
      }
      return source;
    };
    let source = open();
    const timer = setInterval(() => {
      const quietMs = Date.now() - heardAt;
      if (now.current.state === 'here' && quietMs > SILENT_MS) lose('silent');
      if (source.readyState === EventSource.CLOSED && quietMs > RETRY_MS) source = open();
      if (isDrawn) return;
      isDrawn = true;
      setLive(now.current);
    }, DRAWN_MS);
    return () => {
      clearInterval(timer);
      source.close();
    };
  }, [symbol, exchange, marketType]);
  return live;
}

/** Those of the database and those of the line as one list, each once, the newest first. */
export function newestTrades(stored: readonly LiveTrade[], live: readonly LiveTrade[]): LiveTrade[] {
  const known = new Set<string>();
  const all: LiveTrade[] = [];
  for (const trade of [...live].reverse().concat(stored)) {
    if (known.has(trade.trade_id)) continue;
    known.add(trade.trade_id);
    all.push(trade);
  }
  return all.sort((a, b) => b.timestamp - a.timestamp).slice(0, MOST_TRADES);
}
