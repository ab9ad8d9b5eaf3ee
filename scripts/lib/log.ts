/** One JSON line per event on stdout (journald reads it as it is). */
import { type Logger, pino } from 'pino';

export type { Logger };

/**
 * A logger whose lines carry `service` and an ISO time. Level from `LOG_LEVEL` (default info).
 * Writes synchronously, so that the last line before a crash is not lost.
 */
export function createLogger(service: string, level = process.env.LOG_LEVEL ?? 'info'): Logger {
  return pino(
    {
      level,
      base: { service },
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: (error: unknown) => (error instanceof Error ? error.message : error) },
    },
    pino.destination({ fd: 1, sync: true }),
  );
}
