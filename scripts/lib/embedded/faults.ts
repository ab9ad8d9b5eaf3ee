/** Errors as ClickHouse tells them over HTTP: code, name, text and HTTP status. */
import { SqlError } from '../sql_text.ts';

/** A fault with ClickHouse's code and name. */
export class ClickHouseFault extends Error {
  constructor(
    readonly code: number,
    readonly type: string,
    message: string,
  ) {
    super(message);
    this.name = 'ClickHouseFault';
  }
}

/** The client went away before its request was complete or its answer was wanted: nobody is left to be told. */
export class ClientGone extends Error {}

/** HTTP status by exception code, as in ClickHouse's HTTP handler; all others are 500. */
const STATUS: ReadonlyMap<number, number> = new Map([
  [194, 401],
  ...[192, 193, 516, 512, 497].map((code) => [code, 403] as const),
  ...[36, 427, 6, 25, 26, 38, 41, 72, 441, 675, 676, 27, 376, 15, 44, 37, 123, 8, 167, 168, 223, 62, 117, 53, 321].map(
    (code) => [code, 400] as const,
  ),
  ...[60, 46, 47, 50, 56, 81, 115, 152, 63, 73, 336, 78, 511].map((code) => [code, 404] as const),
  [229, 413],
  [48, 501],
  ...[209, 76, 439].map((code) => [code, 503] as const),
  [381, 411],
  [159, 408],
  [779, 415],
]);

/** The HTTP status that a ClickHouse server answers for this exception. */
export function httpStatus(code: number): number {
  return STATUS.get(code) ?? 500;
}

/** Any thrown value as a ClickHouse fault; the engine's own message is taken apart, everything else is code 1002. */
export function asFault(error: unknown): ClickHouseFault {
  if (error instanceof ClickHouseFault) return error;
  if (error instanceof SqlError) return new ClickHouseFault(error.code, error.type, error.message);
  const text = error instanceof Error ? error.message : String(error);
  const match = /^(?:Query failed: )?Code: (\d+)\. DB::Exception: ([\s\S]*)$/.exec(text.trim());
  if (!match) return new ClickHouseFault(1002, 'UNKNOWN_EXCEPTION', text);
  const code = Number(match[1]);
  // Some errors come wrapped in a copy of themselves: "Code: 115. DB::Exception: … (version …). (UNKNOWN_SETTING)".
  let message = match[2]!.replace(/^Code: \d+\. DB::Exception: /, '').trim();
  const type = /\(([A-Z][A-Z0-9_]*)\)$/.exec(message)?.[1] ?? 'UNKNOWN_EXCEPTION';
  if (message.endsWith(`(${type})`)) message = message.slice(0, -type.length - 2).trim();
  message = message.replace(/\s*\(version [^()]*\)\.?$/, '').trim();
  if (message.endsWith(`(${type})`)) message = message.slice(0, -type.length - 2).trim();
  return new ClickHouseFault(code, type, message);
}

/** The body of an error answer, ending in a line end. */
export function faultText(fault: ClickHouseFault, version: string): string {
  return `Code: ${fault.code}. DB::Exception: ${fault.message} (${fault.type}) (version ${version} (embedded))\n`;
}
