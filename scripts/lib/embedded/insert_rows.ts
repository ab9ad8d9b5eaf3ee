/**
 * The rows behind an INSERT on their way into the engine. The client inside of it takes statement and rows for one text of SQL first, which has three
 * effects that a server does not have:
 *
 * - An empty line ends the rows, and what follows is executed as a statement of its own.
 * - It takes all rows apart into words of SQL, to find hints in comments that only its own tests have: 5 of the 8 ns a byte of an insert into a table
 *   that keeps nothing (1.4 of 5.5 µs a trade, measured with 22,000 rows). A quote that opens before the first row makes all one word. It has a line of
 *   its own, a row that cannot be read, and the only one that may be.
 * - An error that such a hint expects is not told: the insert seems done, and nothing is stored.
 */
import { ClickHouseFault } from './faults.ts';

/** A line that is no row costs an exception in the engine; below this length of rows that is dearer than what is saved. */
const WORTH_BYTES = 64 * 1024;

const QUOTE = 0x27;
const BRACE = 0x7b;
const EMPTY_LINE = '\n\n';

/** Behind the format's name: the quote on a line of its own. */
export const QUOTE_LINE = "\n'";

/** What is added to the settings of an insert of quoted rows. */
export const QUOTED_SETTINGS: readonly [string, string][] = [
  ['input_format_allow_errors_num', '1'],
  ['input_format_allow_errors_ratio', '0'],
];

/** One who allows errors counts them. */
const OWN_ALLOWANCE = /input_format_allow_errors/i;

const HINT = /\{\s*(?:client|server)?error/i;

/**
 * Rows that the engine takes as a whole.
 * @returns JSON rows without their empty lines, which say nothing; others as they are
 * @throws ClickHouseFault 48 where an empty line may be a row
 */
export function withoutEmptyLines(format: string, rows: Buffer): Buffer {
  const at = rows.indexOf(EMPTY_LINE);
  if (at < 0) return rows;
  if (format.startsWith('JSON'))
    return Buffer.from(
      rows
        .toString('latin1')
        .replace(/\n{2,}/g, '\n')
        .replace(/^\n/, ''),
      'latin1',
    );
  throw new ClickHouseFault(
    48,
    'NOT_IMPLEMENTED',
    `The embedded engine takes an empty line for the end of the rows, and there is one after ${at + 1} bytes of ${format}: insert as JSONEachRow, or use a ClickHouse server`,
  );
}

/**
 * Whether an insert's rows may have the quote in front of them.
 * @param statement the INSERT up to its rows @param rows beginning with the first row, as the client sent them
 */
export function mayBeQuoted(
  statement: string,
  format: string,
  settings: ReadonlyMap<string, string>,
  rows: Buffer,
): boolean {
  return (
    format === 'JSONEachRow' &&
    rows.length >= WORTH_BYTES &&
    // `[` begins an array of rows, which must come first.
    rows[0] === BRACE &&
    // Another quote would end the word, and what stands in a row's text behind it would be read as SQL.
    !rows.includes(QUOTE) &&
    !OWN_ALLOWANCE.test(statement) &&
    ![...settings.keys()].some((name) => OWN_ALLOWANCE.test(name))
  );
}

/** What the engine says of quoted rows, as it would have said it of the rows alone. */
export function unquotedFault({ code, type, message }: ClickHouseFault): ClickHouseFault {
  const told = message
    .replace(/ \(Already have 2 errors out of \d+ rows, which is [^()]* of all rows\):/, '')
    .replace(/\(at row (\d+)\)/, (_, row: string) => `(at row ${Number(row) - 1})`);
  return new ClickHouseFault(code, type, told);
}

/** @throws ClickHouseFault 27 when nothing was written and a hint in the rows may have kept the reason back */
export function refuseUntold(rowsWritten: number, rows: Buffer): void {
  if (rowsWritten > 0 || !HINT.test(rows.toString('latin1'))) return;
  throw new ClickHouseFault(
    27,
    'CANNOT_PARSE_INPUT_ASSERTION_FAILED',
    'Nothing was stored, and the engine does not say why: a text in the rows looks like a hint of its tests, `-- { error … }`',
  );
}
