/** The code of an installation: a copy that only root can change, so that no service can change what it runs. */
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join, relative } from 'node:path';
import { z } from 'zod';
import { run, type Step } from './steps.ts';

/** What runs, and what people look up. */
const PARTS = [
  'package.json',
  'package-lock.json',
  'tsconfig.json',
  'README.md',
  'LICENSE',
  'scripts',
  'sql',
  'systemd',
  'logrotate',
];
const PACKAGES = 'node_modules';
/** Says what was copied. */
const STAMP = '.installed';

/** @param from a checkout whose packages are there @param to where it is to be; the same place: nothing is copied */
export function codeStep(from: string, to: string): Step {
  const isSame = () => existsSync(to) && realpathSync(from) === realpathSync(to);
  const stamp = stampOf(from);
  const present = () => (existsSync(join(to, STAMP)) ? readFileSync(join(to, STAMP), 'utf8') : null);
  return {
    what: `code in ${to}`,
    lacks: () =>
      isSame() || present() === stamp ? null : present() === null ? 'copied' : 'replaced by another version',
    apply() {
      const [next, last] = [`${to}.new`, `${to}.old`];
      for (const each of [next, last]) rmSync(each, { recursive: true, force: true });
      mkdirSync(next, { recursive: true, mode: 0o755 });
      const isUnused = developmentPackages(from);
      for (const part of [...PARTS, PACKAGES].filter((each) => existsSync(join(from, each)))) {
        cpSync(join(from, part), join(next, part), {
          recursive: true,
          preserveTimestamps: true,
          verbatimSymlinks: true,
          filter: (path) => !isUnused.has(relative(from, path)),
        });
      }
      // A checkout of somebody with a narrow umask would be unreadable for the services.
      run('chown', ['-R', 'root:root', next]);
      run('chmod', ['-R', 'a+rX,go-w', next]);
      writeFileSync(join(next, STAMP), stamp);
      if (existsSync(to)) renameSync(to, last);
      renameSync(next, to);
      rmSync(last, { recursive: true, force: true });
    },
  };
}

const LOCK = z.object({ packages: z.record(z.string(), z.object({ dev: z.boolean().optional() })) });

/** Folders of packages that only tests need, and what was kept beside them. */
function developmentPackages(root: string): Set<string> {
  const { packages } = LOCK.parse(JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')));
  const folders = Object.entries(packages).flatMap(([folder, { dev }]) => (dev === true ? folder : []));
  return new Set([...folders, join(PACKAGES, '.cache'), join(PACKAGES, '.bin')]);
}

/** Of all that is ours, and of the packages' exact versions. */
function stampOf(root: string): string {
  const hash = createHash('sha256');
  const add = (path: string) => {
    for (const entry of readdirSync(join(root, path), { withFileTypes: true }).sort((a, b) =>
      a.name < b.name ? -1 : 1,
    )) {
      const inner = join(path, entry.name);
      if (entry.isDirectory()) add(inner);
      else hash.update(`${inner}\0`).update(readFileSync(join(root, inner)));
    }
  };
  for (const part of PARTS) {
    if (!existsSync(join(root, part))) continue;
    if (part.includes('.') || part === 'LICENSE') hash.update(`${part}\0`).update(readFileSync(join(root, part)));
    else add(part);
  }
  return hash.digest('hex');
}
