/** The limits of checks and alerts: shown to everybody, changed with the token. */
import { useState } from 'preact/hooks';
import type { Limits } from '../../lib/checks/limits.ts';
import { ask, useData } from '../ui/data.ts';
import { Card, Loaded } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';
import { Outcome, SEVERITIES, type Severity, severityWord, useAction, WriteButton } from './quality_parts.tsx';

type LimitName = keyof Limits;

const TEXT = texts({
  title: ['Limits', '阈值'],
  note: [
    'Beyond these a check finds something; kept in data/state/thresholds.json, which integrity.ts reads, too',
    '超出阈值即视为问题；保存于 data/state/thresholds.json，integrity.ts 同样读取',
  ],
  save: ['Save what was changed', '保存修改'],
  saved: ['Saved. They hold from the next round on.', '已保存，自下一轮检查起生效。'],
  wrong: ['takes a number', '应为数字'],
});
const NAMES = texts<LimitName>({
  freshness_minutes: ['Trades and books silent, min', '成交与订单簿中断，分钟'],
  low_frequency_hours: ['Other streams silent, h', '其他数据流中断，小时'],
  storage_delay_minutes: ['Socket to hot, min', '接收至热库，分钟'],
  replication_lag_minutes: ['Hot to cold, min', '热库至冷库，分钟'],
  open_gap_minutes: ['Gap open, min', '缺口未回补，分钟'],
  completeness_percent: ['Completeness, %', '完整率，%'],
  pending_messages: ['Messages waiting', '积压消息数'],
  service_memory_mib: ['Memory of a service, MiB', '服务内存，MiB'],
  engine_memory_mib: ['Memory of the engine, MiB', '数据库内存，MiB'],
  restarts: ['Restarts', '重启次数'],
  price_off_percent: ['Price off, %', '价格偏离，%'],
  volume_off_percent: ['Volume off candles, %', '成交量偏离 K 线，%'],
  volume_times: ['Volume off earlier days, ×', '成交量偏离往日，倍'],
  notify_from: ['Notify from severity', '通知起始级别'],
  reminder_hours: ['Remind after, h (0: never)', '重复提醒间隔，小时（0 为从不）'],
  flap_raises: ['Flapping after raises', '抖动判定次数'],
  flap_minutes: ['… within, min', '……时间窗，分钟'],
});
const NAMED = Object.keys(NAMES) as LimitName[];
const CHOICES = SEVERITIES.filter((each) => each !== 'hint');

export function LimitsCard({ token }: { token: string }) {
  const data = useData<Limits>('/api/monitoring/thresholds', 60_000);
  return (
    <Card wide title={TEXT.title} note={TEXT.note}>
      <Loaded data={data}>{(limits) => <LimitsForm limits={limits} token={token} onSaved={data.again} />}</Loaded>
    </Card>
  );
}

interface FormProps {
  limits: Limits;
  token: string;
  onSaved(): void;
}

function LimitsForm({ limits, token, onSaved }: FormProps) {
  const [changed, setChanged] = useState<Partial<Record<LimitName, string>>>({});
  const action = useAction();
  const given = Object.entries(changed).filter(([name, text]) => text !== String(limits[name as LimitName]));
  const save = async () => {
    const isDone = await action.run(async () => {
      const wrong = given.find(([name, text]) => name !== 'notify_from' && (text.trim() === '' || Number.isNaN(+text)));
      if (wrong !== undefined) throw new Error(`${NAMES[wrong[0] as LimitName]}: ${TEXT.wrong}`);
      const body = Object.fromEntries(
        given.map(([name, text]) => [name, name === 'notify_from' ? text : Number(text)]),
      );
      await ask('/api/monitoring/thresholds', { method: 'PUT', body, token });
      return TEXT.saved;
    });
    if (!isDone) return;
    setChanged({});
    onSaved();
  };
  const set = (name: LimitName, text: string) => setChanged({ ...changed, [name]: text });
  return (
    <>
      <Outcome action={action} />
      <div class="limits">
        {NAMED.map((name) => (
          <div key={name} class={given.some(([each]) => each === name) ? 'changed' : undefined}>
            <label htmlFor={`limit-${name}`}>{NAMES[name]}</label>
            {name === 'notify_from' ? (
              <select
                id={`limit-${name}`}
                name={name}
                value={changed[name] ?? limits[name]}
                onChange={(event) => set(name, event.currentTarget.value)}
              >
                {CHOICES.map((each) => (
                  <option key={each} value={each}>
                    {severityWord(each as Severity)}
                  </option>
                ))}
              </select>
            ) : (
              <input
                id={`limit-${name}`}
                name={name}
                inputMode="decimal"
                value={changed[name] ?? String(limits[name])}
                onInput={(event) => set(name, event.currentTarget.value)}
              />
            )}
          </div>
        ))}
      </div>
      <WriteButton token={token} disabled={given.length === 0 || action.isBusy} onClick={() => void save()}>
        {TEXT.save}
      </WriteButton>
    </>
  );
}
