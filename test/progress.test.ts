import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Progress } from '../scripts/lib/progress.ts';

test('progress is told now and then, on a terminal as a bar that stays on its line', () => {
  for (const isTTY of [false, true]) {
    let now = 0;
    let written = '';
    const write = (text: string | Uint8Array) => {
      written += String(text);
      return true;
    };
    const out = { isTTY, write };
    const progress = new Progress(out as Pick<NodeJS.WriteStream, 'write' | 'isTTY'>, () => now);
    progress.show(0.1, '1 of 10');
    assert.equal(written, '', 'nothing at once');
    now = isTTY ? 200 : 10_000;
    progress.show(0.5, '5 of 10');
    progress.show(0.6, '6 of 10');
    now *= 2;
    progress.show(1, '10 of 10');
    const half = `[${'#'.repeat(15)}${'.'.repeat(15)}] 50 %  5 of 10`;
    const whole = `[${'#'.repeat(30)}] 100 %  10 of 10`;
    assert.equal(written, isTTY ? `\r\x1b[K${half}\r\x1b[K${whole}` : `${half}\n${whole}\n`);
    progress.clear();
    assert.equal(written.endsWith('\r\x1b[K'), isTTY);
  }
});
