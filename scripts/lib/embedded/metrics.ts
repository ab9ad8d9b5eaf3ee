/** Prometheus figures of the embedded server. */
import { Counter, Gauge } from 'prom-client';
import { createRegistry } from '../service.ts';

export interface Metrics {
  done: Counter;
  failed: Counter;
  dropped: Counter;
  received: Counter;
  sent: Counter;
  contentType: string;
  text(): Promise<string>;
}

/** Besides those of the process, figures with the prefix marketprism_clickhouse_; gauges are read when they are asked for. */
export function createMetrics(
  running: () => number,
  load: () => { busy: number; sessions: number; waiting: number },
  bodyBytes: () => number,
): Metrics {
  const registry = createRegistry();
  const counter = (name: string, help: string) =>
    new Counter({ name: `marketprism_clickhouse_${name}`, help, registers: [registry] });
  const gauge = (name: string, help: string, value: () => number) =>
    new Gauge({
      name: `marketprism_clickhouse_${name}`,
      help,
      registers: [registry],
      collect() {
        this.set(value());
      },
    });
  gauge('queries_running', 'Queries from their headers to their end', running);
  gauge('queries_waiting', 'Queries that wait for a session', () => load().waiting);
  gauge('sessions', 'Engine sessions', () => load().sessions);
  gauge('sessions_busy', 'Engine sessions that run a query', () => load().busy);
  gauge('body_bytes', 'Bytes of request bodies in memory', bodyBytes);
  gauge('resident_memory_bytes', 'Resident memory of the process', () => process.memoryUsage.rss());
  return {
    done: counter('queries_done_total', 'Queries answered'),
    failed: counter('queries_failed_total', 'Queries answered with an error'),
    dropped: counter('queries_dropped_total', 'Queries whose client went away'),
    received: counter('received_bytes_total', 'Bytes of request bodies, decompressed'),
    sent: counter('sent_bytes_total', 'Bytes of results before compression'),
    contentType: registry.contentType,
    text: () => registry.metrics(),
  };
}
