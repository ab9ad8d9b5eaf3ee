/** The monitor's metrics: rounds, standing alerts, and whether people could be told. */
import { Counter, type Registry } from 'prom-client';
import { SEVERITIES } from './checks/check.ts';
import type { Monitor } from './monitor.ts';
import { gaugeMaker } from './service.ts';

const PREFIX = 'marketprism_monitor_';

export function registerMonitorMetrics(registry: Registry, monitor: Monitor): void {
  const gauge = gaugeMaker(registry);
  gauge('monitor_alerts', 'alerts that stand, muted ones apart', ['severity'], (each) => {
    for (const severity of SEVERITIES.slice(1)) each.set({ severity }, 0);
    for (const { severity, muted_by } of monitor.standing) if (muted_by === null) each.inc({ severity });
  });
  gauge('monitor_muted_alerts', 'alerts that stand and follow from a part that is down', [], (each) =>
    each.set(monitor.standing.filter(({ muted_by }) => muted_by !== null).length),
  );
  gauge('monitor_acknowledged_alerts', 'alerts that stand and that somebody knows of as they are', [], (each) =>
    each.set(monitor.standing.filter(({ acknowledged }) => acknowledged !== null).length),
  );
  gauge(
    'monitor_last_round_timestamp_seconds',
    'when the last round began that answered this type',
    ['type'],
    (each) => {
      for (const [type, at] of Object.entries(monitor.last)) each.set({ type }, at / 1000);
    },
  );
  gauge('monitor_completeness_ratio', 'rows stored of rows expected, of the last round', [], (each) => {
    const percent = monitor.rounds.at(-1)?.completeness ?? null;
    if (percent !== null) each.set(percent / 100);
  });
  counter(registry, 'rounds_total', 'rounds by type and verdict', ['type', 'status'], monitor.counts.rounds);
  counter(registry, 'events_total', 'events that other scripts posted, by result', ['result'], monitor.counts.events);
  const { notifications } = monitor.counts;
  counter(registry, 'notifications_total', 'messages to people by result', ['notifier', 'result'], notifications);
}

/** Counts that are kept elsewhere, under label values joined by blanks. */
function counter(
  registry: Registry,
  name: string,
  help: string,
  labelNames: string[],
  counts: Map<string, number>,
): void {
  new Counter({
    name: PREFIX + name,
    help,
    labelNames,
    registers: [registry],
    collect() {
      this.reset();
      for (const [key, count] of counts) {
        const values = key.split(' ');
        this.inc(Object.fromEntries(labelNames.map((label, i) => [label, values[i]!])), count);
      }
    },
  });
}
