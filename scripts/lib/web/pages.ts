/** The pages: one document for all of them, whose scripts and styles are bundled when the service starts, and kept in memory. */
import { readFile } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { build, stop } from 'esbuild';
import { Answer } from './route.ts';

const FOLDER = join(import.meta.dirname, '..', '..', 'web');
const TYPES: Record<string, string> = {
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
};
/** Where a page is; what follows is of its own. */
const PAGE =
  /^\/(?:|market(?:\/[^/]+)?|escape-signal-history|coin-price-tracker|major-events|microstructure|correlation|quality|soak|api-list)$/;

/** What a browser may ask for by name. */
export interface Pages {
  /** @returns null when there is none of that path */
  at(path: string): Answer | null;
}

let made: Promise<Pages> | null = null;

/** Made once in a process: esbuild is one for all who build, and is ended afterwards. @throws Error when a script of the pages does not compile */
export function buildPages(): Promise<Pages> {
  return (made ??= bundled());
}

async function bundled(): Promise<Pages> {
  const entryPoints = ['main.tsx', 'early.ts', 'icon.svg'].map((name) => join(FOLDER, name));
  const { outputFiles } = await build({
    ...{ entryPoints, outdir: FOLDER, bundle: true, write: false, minify: true, logLevel: 'silent' },
    ...{ format: 'esm', target: 'es2022', jsx: 'automatic', jsxImportSource: 'preact', loader: { '.svg': 'copy' } },
  });
  // It leaves a process behind, which nothing would use again.
  await stop();
  const files = new Map(
    outputFiles.map(({ path, contents }) => [
      `/assets/${path.slice(FOLDER.length + 1)}`,
      new Answer(Buffer.from(contents), TYPES[extname(path)]!),
    ]),
  );
  const document = new Answer(await readFile(join(FOLDER, 'page.html'), 'utf8'), 'text/html; charset=utf-8');
  return { at: (path) => files.get(path) ?? (PAGE.test(path) ? document : null) };
}
