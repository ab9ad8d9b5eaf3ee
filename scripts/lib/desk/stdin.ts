/** Pure cores on standard input and output: a JSON object a line in, objects out, the same bytes for the same input. */
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import type { z } from 'zod';

/** What is written is gathered up to this. */
const BUFFER_CHARACTERS = 65_536;

/**
 * Feeds each line of standard input to `take`, and writes what it gives; `end` gives what is left when the input is over. A line that is not
 * sound is told on standard error with its number, and the others are taken.
 * @returns the exit code: 1 when a line was not sound
 */
export async function transformStdin<T>(
  schema: z.ZodType<T>,
  take: (value: T) => Iterable<object>,
  end: () => Iterable<object> = () => [],
): Promise<number> {
  let [number, faults, text] = [0, 0, ''];
  const flush = async () => {
    if (!process.stdout.write(text)) await once(process.stdout, 'drain');
    text = '';
  };
  for await (const line of createInterface({ input: process.stdin, crlfDelay: Number.POSITIVE_INFINITY })) {
    number += 1;
    if (line.trim() === '') continue;
    try {
      const parsed = schema.safeParse(JSON.parse(line));
      if (!parsed.success) {
        const { path, message } = parsed.error.issues[0]!;
        throw new Error(`${path.join('.') || 'line'}: ${message}`);
      }
      for (const each of take(parsed.data)) text += `${JSON.stringify(each)}\n`;
    } catch (error) {
      faults += 1;
      process.stderr.write(`line ${number}: ${(error as Error).message}\n`);
    }
    if (text.length > BUFFER_CHARACTERS) await flush();
  }
  for (const each of end()) {
    text += `${JSON.stringify(each)}\n`;
    if (text.length > BUFFER_CHARACTERS) await flush();
  }
  await flush();
  return faults === 0 ? 0 : 1;
}
