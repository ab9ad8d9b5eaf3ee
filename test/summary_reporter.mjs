/**
 * Reporter of `npm test`, beside TAP: when all is over, the files that took longest, and each failed test with its reason, so that the end of a long
 * output tells what is wrong. Plain JavaScript: the runner loads a reporter before any loader of TypeScript.
 */
import { relative } from 'node:path';

const SLOWEST = 12;
const REASON_LINES = 40;

/** Node wraps what a test threw. */
function reasonOf(error) {
  const thrown = error.cause ?? error;
  const text = thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
  return text.split('\n').slice(0, REASON_LINES).join('\n    ');
}

/** A suite's own failure is only that a test of it failed. */
const isOfSuite = (error) => 'failureType' in error && error.failureType === 'subtestsFailed';

export default async function* summary(source) {
  const failures = [];
  const msByFile = new Map();
  for await (const { type, data } of source) {
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    const file = data.file ? relative(process.cwd(), data.file) : 'no file';
    if (data.nesting === 0) msByFile.set(file, (msByFile.get(file) ?? 0) + data.details.duration_ms);
    if (type === 'test:fail' && !isOfSuite(data.details.error)) {
      failures.push(`FAILED ${file}: ${data.name}\n    ${reasonOf(data.details.error)}\n`);
    }
  }
  const slowest = [...msByFile].sort(([, a], [, b]) => b - a).slice(0, SLOWEST);
  const seconds = slowest.map(([file, ms]) => `${file} ${Math.round(ms / 1000)} s`);
  yield `longest (they run side by side): ${seconds.join(', ')}\n`;
  yield* failures;
  yield failures.length > 0 ? `${failures.length} failed\n` : 'none failed\n';
}
