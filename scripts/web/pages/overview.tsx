/** The pipeline and how it stands: what flows, how old the newest rows are, what is missing, and what the monitor says. */
import type { OverviewAnswer } from '../../lib/web/overview_answer.ts';
import { useData } from '../ui/data.ts';
import { bytes, figure, percent, span } from '../ui/format.ts';
import { Card, Figure, Figures, Loaded, type Tone } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import { AlertsCard } from './overview_alerts.tsx';
import { CoverageCard } from './overview_coverage.tsx';
import { ExchangesCard } from './overview_exchanges.tsx';
import { GapsCard } from './overview_gaps.tsx';
import { Pipeline } from './overview_pipeline.tsx';
import { TablesCard } from './overview_tables.tsx';
import './overview.css';

const TEXT = texts({
  pipeline: ['Pipeline', '数据管道'],
  measuring: ['Rates are being measured …', '正在测量速率……'],
  measured: ['Rates over the last', '速率统计窗口：最近'],
  waiting: ['Outbox, waiting', '发件箱待发'],
  oldest: ['oldest', '最早'],
  full: ['full in', '将满于'],
  minutes: ['min', '分钟'],
  diverted: ['the store does not keep up', '入库跟不上'],
  paused: ['sockets are paused', '已暂停接收'],
  onDisk: ['files', '文件'],
  unread: ['JetStream, unread', 'JetStream 未读'],
  messages: ['messages', '条消息'],
  letters: ['Dead letters', '死信'],
  ofHarvest: ['of the harvest', '来自采集'],
  unreadable: ['lines unreadable', '行无法读取'],
  setAside: ['files set aside', '个文件已隔离'],
  disk: ['Disk free', '磁盘剩余'],
  of: ['of', '/'],
  hot: ['Hot', '热库'],
  cold: ['Cold', '冷库'],
  rows: ['rows', '行'],
  noWaiting: ['nothing waits', '无待处理'],
});

/** How often it is asked, ms: the service itself looks no oftener. */
const EVERY_MS = 2000;

export function OverviewPage() {
  const overview = useData<OverviewAnswer>('/api/overview', EVERY_MS);
  return (
    <>
      <Card wide title={TEXT.pipeline}>
        <Loaded data={overview}>
          {(value) => (
            <>
              <Pipeline overview={value} />
              <KeyFigures {...value} />
              <p class="note overview-measured">
                {value.measured_ms === null ? TEXT.measuring : `${TEXT.measured} ${span(value.measured_ms)}`}
              </p>
            </>
          )}
        </Loaded>
      </Card>
      <ExchangesCard overview={overview} />
      <CoverageCard />
      <GapsCard />
      <div class="grid overview-last">
        <AlertsCard />
        <TablesCard overview={overview} />
      </div>
    </>
  );
}

/** Shares of the disk that are little, as the monitor's check of it has them. */
const LITTLE_FREE = 0.2;
const LEAST_FREE = 0.1;

function KeyFigures({ outbox, broker, deadletters, disk, tiers }: OverviewAnswer) {
  const free = disk === null ? null : disk.free_bytes / disk.size_bytes;
  const diskTone: Tone | undefined =
    free === null || free >= LITTLE_FREE ? undefined : free >= LEAST_FREE ? 'warn' : 'bad';
  const letters = deadletters.rows + deadletters.harvest_rows;
  const isBad = deadletters.unreadable + deadletters.set_aside_files > 0;
  return (
    <Figures>
      <Figure
        label={TEXT.waiting}
        name="outbox-waiting"
        tone={outbox.paused ? 'bad' : (outbox.spilled_bytes ?? 0) > 0 ? 'warn' : undefined}
        value={<With note={outboxNote(outbox)}>{bytes(outbox.waiting_bytes)}</With>}
      />
      <Figure
        label={TEXT.unread}
        name="jetstream-unread"
        value={<With note={TEXT.messages}>{figure(broker.unread)}</With>}
      />
      <Figure
        label={TEXT.letters}
        name="deadletters"
        tone={isBad ? 'bad' : letters > 0 ? 'warn' : undefined}
        value={<With note={lettersNote(deadletters)}>{figure(letters)}</With>}
      />
      <Figure
        label={TEXT.disk}
        name="disk-free"
        tone={diskTone}
        value={
          <With note={`${percent(free, 0)} ${TEXT.of} ${bytes(disk?.size_bytes)}`}>{bytes(disk?.free_bytes)}</With>
        }
      />
      {(['hot', 'cold'] as const).map((tier) => (
        <Figure
          key={tier}
          label={`${TEXT[tier]}, ${TEXT.rows}`}
          name={`${tier}-rows`}
          value={<With note={bytes(tiers[tier]?.bytes)}>{figure(tiers[tier]?.rows)}</With>}
        />
      ))}
    </Figures>
  );
}

function With({ children, note }: { children: string; note: string }) {
  return (
    <>
      <span class="overview-value">{children}</span> <small class="overview-note">{note}</small>
    </>
  );
}

function outboxNote({ oldest_ms, minutes_left, diverted, paused, file_bytes }: OverviewAnswer['outbox']): string {
  const parts = [
    paused ? TEXT.paused : diverted ? TEXT.diverted : null,
    oldest_ms === null ? null : `${TEXT.oldest} ${span(oldest_ms)}`,
    minutes_left === null ? null : `${TEXT.full} ${figure(minutes_left)} ${TEXT.minutes}`,
    `${TEXT.onDisk} ${bytes(file_bytes)}`,
  ];
  return parts.filter((part) => part !== null).join(' · ');
}

function lettersNote({ harvest_rows, unreadable, set_aside_files }: OverviewAnswer['deadletters']): string {
  const parts = [
    harvest_rows > 0 ? `${figure(harvest_rows)} ${TEXT.ofHarvest}` : null,
    unreadable > 0 ? `${figure(unreadable)} ${TEXT.unreadable}` : null,
    set_aside_files > 0 ? `${figure(set_aside_files)} ${TEXT.setAside}` : null,
  ].filter((part) => part !== null);
  return parts.join(' · ') || TEXT.noWaiting;
}
