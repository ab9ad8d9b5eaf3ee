/** Correlations against BTC: which coins have left it, each coin's figures, and when they were computed. */
import { useMemo } from 'preact/hooks';
import type { Correlations } from '../../lib/web/signal_routes.ts';
import { useData } from '../ui/data.ts';
import { figure, span } from '../ui/format.ts';
import { Card, Empty, Figure, Figures, Loaded, Problem, Time } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import { AlertHistory, StandingAnomalies } from './correlation_alerts.tsx';
import { HeatMap } from './correlation_heat.tsx';
import './correlation.css';

const TEXT = texts({
  round: ['The last round', '最近一轮'],
  lastRun: ['Ended', '结束于'],
  lastSuccess: ['Last without a fault', '最近一次无故障'],
  took: ['It took', '用时'],
  computing: ['of it computing', '其中计算'],
  coins: ['Coins', '币种数'],
  without: ['Figures not known', '未知数据'],
  ofRows: ['of', '/'],
  btcAge: ['BTC’s newest candle was old', 'BTC 最新K线距轮次'],
  dataTime: ['Newest candle', '最新K线'],
  standing: ['Anomalies', '异常数'],
  fault: ['The last round had a fault', '最近一轮出现故障'],
  unknown: ['correlation_alert.ts has not run here yet.', 'correlation_alert.ts 尚未在此运行。'],
  heat: ['Correlation with BTC', '与 BTC 的相关性'],
  heatNote: [
    'The largest correlation of returns over lags of 0 to 48 candles, by timeframe and period.',
    '延迟 0 至 48 根K线内收益率相关系数的最大值，按时间周期与数据周期排列。',
  ],
  none: [
    'No round has been computed yet. correlation_alert.ts fills its candles first (minutes to an hour), and writes correlations then.',
    '尚未完成任何一轮。correlation_alert.ts 先补齐K线（数分钟至一小时），随后写入相关性。',
  ],
  cut: ['Not all rows are shown: there are', '未显示全部行：共'],
});

const PATH = '/api/correlation/latest?limit=20000';
const EVERY_MS = 30_000;

export function CorrelationPage() {
  const correlations = useData<Correlations>(PATH, EVERY_MS);
  return (
    <>
      <Loaded data={correlations}>
        {(value) => (
          <>
            <StandingAnomalies standing={value.standing} />
            <LastRound value={value} />
            <Heat value={value} />
          </>
        )}
      </Loaded>
      <AlertHistory />
    </>
  );
}

function LastRound({ value }: { value: Correlations }) {
  const { round, error, is_known, last_run, last_success, data_time, standing } = value;
  return (
    <Card wide title={TEXT.round}>
      {is_known ? null : <Empty>{TEXT.unknown}</Empty>}
      {error === null ? null : <Problem error={`${TEXT.fault}: ${error}`} />}
      <Figures>
        <Figure name="standing" label={TEXT.standing} value={figure(is_known ? standing.length : null)} />
        <Figure name="last_run" label={TEXT.lastRun} value={<Time ms={last_run} />} />
        <Figure label={TEXT.lastSuccess} value={<Time ms={last_success} />} />
        <Figure name="seconds" label={TEXT.took} value={span(ms(round?.seconds))} />
        <Figure label={TEXT.computing} value={span(ms(round?.compute_seconds))} />
        <Figure name="coins" label={TEXT.coins} value={figure(round?.coins)} />
        <Figure
          name="without"
          label={TEXT.without}
          value={`${figure(round?.rows_without_corr)} ${TEXT.ofRows} ${figure(round?.rows)}`}
        />
        <Figure label={TEXT.btcAge} value={span(ms(round?.btc_age_seconds))} />
        <Figure name="data_time" label={TEXT.dataTime} value={<Time ms={data_time} detail="minute" />} />
      </Figures>
    </Card>
  );
}

function ms(seconds: number | null | undefined): number | null {
  return seconds === null || seconds === undefined ? null : seconds * 1000;
}

function Heat({ value: { data, standing, total_count, count } }: { value: Correlations }) {
  const off = useMemo(() => new Set(standing.map(({ coin }) => coin)), [standing]);
  return (
    <Card wide title={TEXT.heat} note={TEXT.heatNote}>
      {count < total_count ? (
        <p class="note">
          {TEXT.cut} {figure(total_count)}
        </p>
      ) : null}
      {data.length === 0 ? <Empty>{TEXT.none}</Empty> : <HeatMap data={data} standing={off} />}
    </Card>
  );
}
