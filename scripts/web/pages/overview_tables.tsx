/** What the store and the replication do with each type of rows. */
import type { OverviewAnswer } from '../../lib/web/overview_answer.ts';
import type { Data } from '../ui/data.ts';
import { figure, span } from '../ui/format.ts';
import { Card, Loaded, Table } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import { nameOf } from './overview_coverage.tsx';
import { perSecond } from './overview_pipeline.tsx';

const TEXT = texts({
  title: ['Stored by type', '按类型入库'],
  type: ['Type', '类型'],
  rate: ['Stored rows/s', '入库 行/秒'],
  backlog: ['Not delivered', '未投递'],
  holding: ['In hand', '在手'],
  lag: ['Cold behind', '冷库落后'],
  note: ['Not delivered and in hand are messages of JetStream.', '未投递与在手均指 JetStream 消息数。'],
  none: ['store.ts does not answer: it tells these figures.', 'store.ts 无应答：这些数据由它提供。'],
});

export function TablesCard({ overview }: { overview: Data<OverviewAnswer> }) {
  return (
    <Card title={TEXT.title} note={TEXT.note}>
      <Loaded data={overview}>
        {({ tables }) => (
          <Table
            label={TEXT.title}
            rows={tables}
            keyOf={({ data_type }) => data_type}
            empty={TEXT.none}
            columns={[
              { title: TEXT.type, cell: ({ data_type }) => nameOf(data_type) },
              { title: TEXT.rate, isNumber: true, cell: ({ stored_rate }) => perSecond(stored_rate) },
              { title: TEXT.backlog, isNumber: true, cell: ({ backlog }) => figure(backlog) },
              { title: TEXT.holding, isNumber: true, cell: ({ holding }) => figure(holding) },
              { title: TEXT.lag, isNumber: true, cell: ({ lag_ms }) => span(lag_ms) },
            ]}
          />
        )}
      </Loaded>
    </Card>
  );
}
