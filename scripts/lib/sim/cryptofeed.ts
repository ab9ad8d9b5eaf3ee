/**
 * Recorded sessions in cryptofeed's format, for replays: `<seconds>: <raw>` per frame of the venue, `<url> -> <seconds>: <JSON>`
 * per answer over REST, `<url> <- <seconds>: <raw>` per message of the client.
 */
import { readFileSync } from 'node:fs';
import { OperatorError } from '../cli.ts';

export interface RecordedFrame {
  /** ms since the epoch. */
  readonly at: number;
  readonly text: string;
}

export interface RecordedAnswer {
  /** Path and query. */
  readonly path: string;
  readonly at: number;
  readonly body: string;
}

/** The venue's frames, in the recorded order. @throws OperatorError when the file cannot be read or has none */
export function recordedFrames(file: string): RecordedFrame[] {
  const frames = lines(file).flatMap((line) => {
    const match = /^(\d+(?:\.\d+)?): (.*)$/.exec(line);
    if (!match) return [];
    const [, seconds = '', raw = ''] = match;
    return [{ at: Number(seconds) * 1000, text: unquoted(raw) }];
  });
  if (frames.length === 0) throw new OperatorError(`--replay: ${file} has no frame of the form "<seconds>: <raw>"`);
  return frames;
}

/** The answers over REST, in the recorded order. @throws OperatorError when the file cannot be read */
export function recordedAnswers(file: string): RecordedAnswer[] {
  return lines(file).flatMap((line) => {
    const match = /^https?:\/\/[^/]+(\S*) -> (\d+(?:\.\d+)?): (.*)$/.exec(line);
    if (!match) return [];
    const [, path = '', seconds = '', body = ''] = match;
    return [{ path, at: Number(seconds) * 1000, body }];
  });
}

function lines(file: string): string[] {
  try {
    return readFileSync(file, 'utf8').split('\n');
  } catch (error) {
    throw new OperatorError(`--replay: cannot read ${file}: ${(error as Error).message}`);
  }
}

/** Binary frames were written as Python bytes: b'…'. */
function unquoted(raw: string): string {
  const quoted = /^b(['"])(.*)\1$/.exec(raw);
  if (!quoted) return raw;
  return (quoted[2] as string).replace(/\\(x[0-9a-f]{2}|.)/g, (_, escaped: string) => {
    if (escaped.length === 3) return String.fromCharCode(Number.parseInt(escaped.slice(1), 16));
    return { n: '\n', r: '\r', t: '\t' }[escaped] ?? escaped;
  });
}
