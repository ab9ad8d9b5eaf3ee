/** One soak run: its criteria, the slopes of its processes' memory, its checkpoints, and its samples as charts. */
import type { FlowMetric, ProcessMetric } from '../../lib/soak/report.ts';
import type { SoakDetail } from '../../lib/web/soak_routes.ts';
import { Chart, type ChartSeries, type Colour } from '../ui/chart.tsx';
import { useData } from '../ui/data.ts';
import { figure, fixed, percent, span, UNKNOWN } from '../ui/format.ts';
import { Card, Empty, Figure, Figures, Loaded, Table, Time } from '../ui/parts.tsx';
import { settings, texts } from '../ui/settings.ts';
import { SoakBadge } from './soak_words.tsx';

const TEXT = texts({
  run: ['Run', '测试'],
  verdict: ['Verdict', '结论'],
  began: ['Began', '开始时间'],
  ended: ['Ended', '结束时间'],
  goesOn: ['goes on', '进行中'],
  ran: ['Ran', '已运行'],
  of: ['of', '/'],
  samples: ['Samples', '样本'],
  missing: ['Missing samples', '缺失样本'],
  written: ['Last written', '最近写入'],
  code: ['Version', '版本'],
  host: ['Host', '主机'],
  mode: ['Mode', '模式'],
  exchanges: ['Exchanges', '交易所'],
  symbols: ['Symbols', '交易对'],
  restarts: ['Restarts', '重启次数'],
  criteria: ['Criteria', '判定标准'],
  criterion: ['Criterion', '标准'],
  limit: ['Limit', '阈值'],
  measured: ['Measured', '测得'],
  note: ['Note', '说明'],
  noCriteria: ['Nothing is judged yet.', '尚未判定。'],
  memory: ['Memory over time', '内存趋势'],
  memoryNote: [
    'Slope of resident memory with the range in which it lies at that confidence; a range that includes 0 shows no leak',
    '常驻内存的斜率及其置信区间；区间包含 0 表示未见泄漏',
  ],
  process: ['Process', '进程'],
  slope: ['Slope, MiB/h', '斜率，MiB/小时'],
  range: ['Range, MiB/h', '区间，MiB/小时'],
  growth: ['Over the run, %', '全程增长，%'],
  stops: ['Stops', '停止测试'],
  stopsNote: [
    'Everything is stopped in the middle of the run, and at its end: each process must end by itself, with code 0, within 10 s',
    '运行中途与结束时各停止一次：每个进程须在 10 秒内以退出码 0 自行退出',
  ],
  noStops: ['Nothing was stopped yet.', '尚未停止。'],
  what: ['What', '对象'],
  well: ['Went well', '结果'],
  yes: ['yes', '正常'],
  no: ['no', '异常'],
  took: ['Took, ms', '耗时，毫秒'],
  ledger: ['Every row', '逐行核对'],
  ledgerNote: [
    'What the exchanges sent (where they count it), what the collector accepted, and what is stored; a row of a table that is not as it should be is marked',
    '交易所发送（可计数时）、采集器接收与入库的行数；异常行会被标出',
  ],
  noLedger: ['It is drawn at the end of a run.', '运行结束时生成。'],
  exchange: ['Exchange', '交易所'],
  type: ['Type', '类型'],
  sent: ['Sent', '已发送'],
  received: ['Received', '已接收'],
  hot: ['Hot', '热库'],
  cold: ['Cold', '冷库'],
  gap: ['Gap', '缺口'],
  lost: ['Lost', '丢失'],
  doubled: ['Doubled', '重复'],
  worth: ['Worth a look', '值得关注'],
  checkpoints: ['Checkpoints', '检查点'],
  noCheckpoints: ['No checkpoint was reached yet.', '尚未到达检查点。'],
  at: ['At', '时间'],
  rows: ['Rows stored', '入库行数'],
  errors: ['Errors', '错误数'],
  charts: ['Samples', '采样曲线'],
  noSamples: ['No sample was taken yet.', '尚无样本。'],
});
const METRICS = texts<ProcessMetric>({
  rss_bytes: ['Resident memory, MiB', '常驻内存，MiB'],
  cpu_percent: ['CPU, % of one core', 'CPU，占单核 %'],
  threads: ['Threads', '线程数'],
  fds: ['Open file descriptors', '打开的文件描述符'],
  loop_delay_ms: ['Event-loop delay p99, ms', '事件循环延迟 p99，毫秒'],
  connections: ['Connections', '连接数'],
});
const FLOW = texts<FlowMetric>({
  rows: ['Rows stored', '入库行数'],
  errors: ['Errors', '错误数'],
  latency_p50_ms: ['p50', 'p50'],
  latency_p99_ms: ['p99', 'p99'],
  cache_hit_rate: ['Hit rate', '命中率'],
  cache_staleness_ms: ['Age of the newest candle', '最新 K 线年龄'],
});
const GROUPS = texts({
  volume: ['Rows and errors since the sample before', '自上一样本以来的行数与错误数'],
  latency: ['Received to queryable, ms', '接收至可查询延迟，毫秒'],
  cache: ['Cache: hit rate, and how stale', '缓存：命中率与陈旧程度'],
});

const GROUP_NAMES = ['volume', 'latency', 'cache'] as const;
const RUNNING_MS = 10_000;
const COLOURS = 8;
const MIB = 2 ** 20;
const SIGNS = { '<': '<', '<=': '≤', '>': '>', '>=': '≥', '=': '=' } as const;
const SYNC = 'soak';
const FORMATS: Partial<Record<ProcessMetric | FlowMetric, (value: number | null) => string>> = {
  rss_bytes: (mib) => fixed(mib, 1),
  cache_hit_rate: (share) => percent(share, 1),
  cache_staleness_ms: span,
};

export function SoakRun({ id }: { id: string }) {
  const path = `/api/soak/reports/${encodeURIComponent(id)}`;
  // Cheap where nothing changed: the answer is not sent again.
  const data = useData<SoakDetail>(path, RUNNING_MS);
  return (
    <Loaded data={data}>
      {(run) => (
        <>
          <Card title={`${TEXT.run} ${run.id}`}>
            <Head run={run} />
            <Criteria run={run} />
          </Card>
          <div class="grid">
            <Memory run={run} />
            <Checkpoints run={run} />
          </div>
          <Problems run={run} />
          <Charts run={run} />
          <div class="grid">
            <Ledger run={run} />
            <Stops run={run} />
          </div>
        </>
      )}
    </Loaded>
  );
}

function Head({ run }: { run: SoakDetail }) {
  const { verdict, began, ended, duration_ms, for_ms, samples, samples_due, samples_missing, written, plan } = run;
  const restarts = run.restarts.filter((each) => each.restarts > 0);
  return (
    <>
      {run.error === null ? null : (
        <p class="problem" role="alert">
          {run.error}
        </p>
      )}
      <Figures>
        <Figure label={TEXT.verdict} name="soak-verdict" value={<SoakBadge verdict={verdict} />} />
        <Figure label={TEXT.began} value={<Time ms={began} />} />
        <Figure label={TEXT.ended} value={ended === null ? TEXT.goesOn : <Time ms={ended} />} />
        <Figure label={TEXT.ran} name="soak-ran" value={`${span(duration_ms)} ${TEXT.of} ${span(for_ms)}`} />
        <Figure
          label={TEXT.samples}
          name="soak-samples"
          value={`${figure(samples)} ${TEXT.of} ${figure(samples_due)}`}
        />
        <Figure
          label={TEXT.missing}
          name="soak-missing"
          tone={(samples_missing ?? 0) > 0 ? 'warn' : undefined}
          value={figure(samples_missing)}
        />
        <Figure
          label={TEXT.restarts}
          tone={restarts.length > 0 ? 'warn' : undefined}
          value={restarts.map((each) => `${each.name} ${each.restarts}`).join(', ') || '0'}
        />
        <Figure label={TEXT.written} tone={run.is_quiet ? 'bad' : undefined} value={<Time ms={written} />} />
      </Figures>
      <p class="note">
        {TEXT.mode} {plan.mode} · {TEXT.code} {run.code} · {TEXT.host} {run.host} · {TEXT.exchanges}{' '}
        {plan.exchanges.join(', ')} · {TEXT.symbols} {plan.symbols.join(', ')}
      </p>
    </>
  );
}

function Criteria({ run: { criteria_list } }: { run: SoakDetail }) {
  return (
    <Table
      label={TEXT.criteria}
      rows={criteria_list}
      keyOf={({ name }) => name}
      empty={TEXT.noCriteria}
      columns={[
        {
          title: TEXT.criterion,
          cell: ({ title, zh }) => <span class="wraps">{settings().language === 'zh' ? zh : title}</span>,
        },
        { title: TEXT.verdict, cell: ({ verdict }) => <SoakBadge verdict={verdict} /> },
        {
          title: TEXT.measured,
          isNumber: true,
          cell: ({ name, measured, unit }) => (
            <span data-figure={`measured-${name}`}>{withUnit(figure(measured), unit)}</span>
          ),
        },
        {
          title: TEXT.limit,
          isNumber: true,
          cell: ({ limit, unit }) => withUnit(`${SIGNS[limit.comparison]} ${figure(limit.value)}`, unit),
        },
        { title: TEXT.samples, isNumber: true, cell: ({ samples }) => figure(samples) },
        {
          title: TEXT.missing,
          isNumber: true,
          tone: ({ missing }) => (missing > 0 ? 'warn' : undefined),
          cell: ({ missing }) => figure(missing),
        },
        { title: TEXT.note, cell: ({ note }) => <span class="wraps">{note ?? UNKNOWN}</span> },
      ]}
    />
  );
}

function withUnit(text: string, unit: string): string {
  return text === UNKNOWN || unit === '' ? text : `${text} ${unit}`;
}

/** Bytes an hour as MiB with their sign. */
function slopeText(value: number | null): string {
  if (value === null) return UNKNOWN;
  return `${value < 0 ? '−' : '+'}${fixed(Math.abs(value) / MIB, 2)}`;
}

function Memory({ run: { memory } }: { run: SoakDetail }) {
  return (
    <Card title={TEXT.memory} note={TEXT.memoryNote}>
      <Table
        label={TEXT.memory}
        rows={memory}
        keyOf={({ process }) => process}
        empty={TEXT.noSamples}
        columns={[
          { title: TEXT.process, cell: ({ process, method }) => <span title={method}>{process}</span> },
          { title: TEXT.slope, isNumber: true, cell: (each) => slopeText(each.bytes_per_hour) },
          {
            title: TEXT.range,
            isNumber: true,
            // Above zero as a whole: it grows, with that confidence.
            tone: ({ low }) => (low !== null && low > 0 ? 'warn' : undefined),
            cell: ({ low, high, confidence }) =>
              low === null || high === null
                ? UNKNOWN
                : `${slopeText(low)} … ${slopeText(high)} (${percent(confidence, 0)})`,
          },
          {
            title: TEXT.growth,
            isNumber: true,
            cell: ({ growth_percent, left_out }) => (
              <span title={left_out ?? undefined}>
                {growth_percent == null ? UNKNOWN : fixed(growth_percent, 1)}
                {left_out == null ? '' : ' *'}
              </span>
            ),
          },
          { title: TEXT.samples, isNumber: true, cell: ({ samples }) => figure(samples) },
        ]}
      />
    </Card>
  );
}

function Problems({ run: { problems = [] } }: { run: SoakDetail }) {
  if (problems.length === 0) return null;
  return (
    <Card title={TEXT.worth}>
      <ul>
        {problems.map((line) => (
          <li class="wraps">{line}</li>
        ))}
      </ul>
    </Card>
  );
}

function Stops({ run: { stops = [] } }: { run: SoakDetail }) {
  return (
    <Card title={TEXT.stops} note={TEXT.stopsNote}>
      <Table
        label={TEXT.stops}
        rows={stops}
        keyOf={({ at, what }) => `${at} ${what}`}
        empty={TEXT.noStops}
        columns={[
          { title: TEXT.at, cell: ({ at }) => <Time ms={at} detail="minute" /> },
          { title: TEXT.what, cell: ({ what }) => what },
          { title: TEXT.well, cell: ({ ok }) => <span class={ok ? 'good' : 'bad'}>{ok ? TEXT.yes : TEXT.no}</span> },
          { title: TEXT.took, isNumber: true, cell: ({ took_ms }) => figure(took_ms) },
          { title: TEXT.note, cell: ({ note }) => <span class="wraps">{note ?? ''}</span> },
        ]}
      />
    </Card>
  );
}

function Ledger({ run: { ledger } }: { run: SoakDetail }) {
  type Row = NonNullable<typeof ledger>['rows'][number];
  const isWrong = (value: number) => (value > 0 ? ('bad' as const) : undefined);
  const count = (title: string, of: (row: Row) => number | null, tone?: (row: Row) => 'bad' | undefined) => ({
    ...{ title, isNumber: true, cell: (row: Row) => figure(of(row)) },
    ...(tone === undefined ? {} : { tone }),
  });
  return (
    <Card title={TEXT.ledger} note={TEXT.ledgerNote}>
      <Table
        label={TEXT.ledger}
        rows={ledger?.rows ?? []}
        keyOf={({ exchange, data_type }) => `${exchange} ${data_type}`}
        empty={TEXT.noLedger}
        columns={[
          { title: TEXT.exchange, cell: ({ exchange }) => exchange },
          { title: TEXT.type, cell: ({ data_type }) => data_type },
          count(TEXT.sent, ({ sent }) => sent),
          count(TEXT.received, ({ received }) => received),
          count(TEXT.hot, ({ hot }) => hot),
          count(
            TEXT.cold,
            ({ cold }) => cold,
            ({ hot, cold }) => isWrong(Math.abs(hot - cold)),
          ),
          count(TEXT.gap, ({ gap }) => gap),
          count(
            TEXT.lost,
            ({ lost }) => lost,
            ({ lost }) => isWrong(lost),
          ),
          count(
            TEXT.doubled,
            ({ duplicated }) => duplicated,
            ({ duplicated }) => isWrong(duplicated),
          ),
        ]}
      />
    </Card>
  );
}

function Checkpoints({ run: { checkpoints } }: { run: SoakDetail }) {
  return (
    <Card title={TEXT.checkpoints}>
      <Table
        label={TEXT.checkpoints}
        rows={checkpoints}
        keyOf={({ at }) => String(at)}
        empty={TEXT.noCheckpoints}
        columns={[
          { title: TEXT.at, cell: ({ at }) => <Time ms={at} detail="minute" /> },
          { title: TEXT.verdict, cell: ({ verdict }) => <SoakBadge verdict={verdict} /> },
          { title: TEXT.rows, isNumber: true, cell: ({ rows }) => figure(rows) },
          { title: TEXT.errors, isNumber: true, cell: ({ errors }) => figure(errors) },
          { title: TEXT.note, cell: ({ note }) => <span class="wraps">{note ?? UNKNOWN}</span> },
        ]}
      />
    </Card>
  );
}

function Charts({ run }: { run: SoakDetail }) {
  const { processes, flow } = run;
  if ((run.samples ?? 0) === 0)
    return (
      <Card title={TEXT.charts}>
        <Empty>{TEXT.noSamples}</Empty>
      </Card>
    );
  const metrics = Object.keys(METRICS) as ProcessMetric[];
  return (
    <Card title={TEXT.charts}>
      <div class="charts">
        {metrics.map((metric) => {
          const { times, series } = processes[metric];
          return (
            <One
              key={metric}
              title={METRICS[metric]}
              times={times}
              series={series.map(({ name, values }, i) => ({
                ...{
                  label: name,
                  values: scaled(metric, values),
                  colour: ((i % COLOURS) + 1) as Colour,
                  format: FORMATS[metric] ?? figure,
                },
              }))}
            />
          );
        })}
        {GROUP_NAMES.map((group) => (
          <FlowChart key={group} group={group} flow={flow} />
        ))}
      </div>
    </Card>
  );
}

/** Bytes as MiB, so that the axis has round figures. */
function scaled(metric: ProcessMetric, values: readonly (number | null)[]): readonly (number | null)[] {
  return metric === 'rss_bytes' ? values.map((each) => (each === null ? null : each / MIB)) : values;
}

/** The second one has an axis of its own, or that of the first. */
const SECOND_AXIS = { volume: 'right', latency: 'left', cache: 'right' } as const;

function FlowChart({ group, flow }: { group: keyof typeof SECOND_AXIS; flow: SoakDetail['flow'] }) {
  const { times, series } = flow[group];
  const drawn = series.map(({ name, values }, i): ChartSeries => {
    const metric = name as FlowMetric;
    const axis = i === 0 ? 'left' : SECOND_AXIS[group];
    return { label: FLOW[metric], values, colour: (i + 1) as Colour, axis, format: FORMATS[metric] ?? figure };
  });
  return <One title={GROUPS[group]} times={times} series={drawn} />;
}

function One({ title, times, series }: { title: string; times: readonly number[]; series: readonly ChartSeries[] }) {
  return (
    <div>
      <h3>{title}</h3>
      <Chart label={title} times={times} series={series} height={190} sync={SYNC} />
    </div>
  );
}
