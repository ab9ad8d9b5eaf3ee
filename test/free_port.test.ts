import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';

test('a port is given once among all processes that live', async () => {
  const module = join(import.meta.dirname, '../scripts/lib/free_port.ts');
  // Wherever a process begins, these come through the same ports.
  const code = `
    Object.defineProperty(process, 'pid', { value: 7 });
    const { freePort } = await import(${JSON.stringify(module)});
    const ports = [];
    for (let n = 0; n < 40; n += 1) ports.push(await freePort(n % 2 === 0 ? 0 : 4000));
    console.log(JSON.stringify(ports));
    setInterval(() => undefined, 1000);`;
  const children = [1, 2, 3].map(() =>
    spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', code], {
      stdio: ['ignore', 'pipe', 'inherit'],
    }),
  );
  try {
    const ports = await Promise.all(
      children.map(
        (child) => new Promise<number[]>((done) => child.stdout.once('data', (line) => done(JSON.parse(String(line))))),
      ),
    );
    const all = ports.flat();
    assert.equal(all.length, 120);
    assert.equal(new Set(all).size, all.length);
  } finally {
    for (const child of children) child.kill('SIGKILL');
  }
});
