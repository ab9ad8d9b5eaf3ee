/** Lines of our services' logs: pino's JSON, nats-server's own, and whatever else a process says. Pure. */

/** From the least to the most severe, as LOG_LEVEL has them. */
export const LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const;
export type Level = (typeof LEVELS)[number];

/** `[12] 2026/11/30 14:55:41.123456 [WRN] …`, in the machine's own time zone. */
const NATS_LINE = /^\[\d+\] (\d{4})\/(\d\d)\/(\d\d) (\d\d:\d\d:\d\d\.\d+) \[(\w{3})\] (.*)$/;
const NATS_LEVELS: Record<string, Level> = {
  ...{ TRC: 'trace', DBG: 'debug', INF: 'info', WRN: 'warn', ERR: 'error', FTL: 'fatal' },
};

export interface LogLine {
  text: string;
  /** null: the line does not say. */
  level: Level | null;
  /** ms since the epoch; null: the line does not say. */
  time: number | null;
  service: string | null;
  /** What it says, without the members above. */
  message: string;
}

export function readLine(text: string): LogLine {
  const nats = NATS_LINE.exec(text);
  if (nats !== null) {
    const [, year, month, day, clock, level, message] = nats;
    const time = Date.parse(`${year}-${month}-${day}T${clock!.slice(0, 12)}`);
    return { text, level: NATS_LEVELS[level!] ?? null, time, service: 'nats-server', message: message! };
  }
  const members = membersOf(text);
  if (members === null) return { text, level: null, time: null, service: null, message: text };
  const { level, time, service, event, msg, ...rest } = members;
  const at = typeof time === 'number' ? time : Date.parse(String(time));
  const said = [event, msg].filter((each) => typeof each === 'string').join(': ');
  const more = Object.entries(rest).map(([name, value]) => `${name}=${JSON.stringify(value)}`);
  return {
    ...{ text, level: LEVELS.find((each) => each === level) ?? null, time: Number.isNaN(at) ? null : at },
    ...{ service: typeof service === 'string' ? service : null, message: [said, ...more].join(' ').trim() },
  };
}

function membersOf(text: string): Record<string, unknown> | null {
  if (!text.startsWith('{')) return null;
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    // A text that only begins like one: it is shown as it is.
    return null;
  }
}

/** A line that does not say how severe it is, such as that of a stack, is never left out. */
export function isAtLeast({ level }: Pick<LogLine, 'level'>, least: Level): boolean {
  return level === null || LEVELS.indexOf(level) >= LEVELS.indexOf(least);
}

/** For people: time, level, who, what. */
export function pretty({ text, level, time, service, message }: LogLine, name: string): string {
  if (level === null && time === null) return `${' '.repeat(24)}  ${''.padEnd(5)}  ${name}: ${text}`;
  const at = time === null ? ''.padEnd(24) : new Date(time).toISOString();
  return `${at}  ${(level ?? '').padEnd(5)}  ${service ?? name}: ${message}`;
}

/** Lines of several logs in the order of their times; one without a time stays behind the one before it in its log. */
export function merged(logs: readonly (readonly LogLine[])[]): LogLine[] {
  const all = logs.flatMap((lines) => {
    let last = Number.NEGATIVE_INFINITY;
    return lines.map((line) => ({ line, at: (last = Math.max(line.time ?? last, last)) }));
  });
  return all.sort((one, other) => (one.at === other.at ? 0 : one.at - other.at)).map(({ line }) => line);
}
