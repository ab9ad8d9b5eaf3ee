/** The pages: files of one folder, as they are. */
import { readFile, realpath } from 'node:fs/promises';
import { join, sep } from 'node:path';
import { Answer } from './route.ts';

const TYPES: Record<string, string> = {
  html: 'text/html; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  css: 'text/css; charset=utf-8',
  json: 'application/json; charset=utf-8',
  svg: 'image/svg+xml',
  png: 'image/png',
  ico: 'image/x-icon',
  woff2: 'font/woff2',
  txt: 'text/plain; charset=utf-8',
};
/** No part begins with a dot: neither `..` nor what is hidden. A percent sign is none of ours. */
const PATH = /^\/(?:[\w-][\w.-]*\/)*(?:[\w-][\w.-]*)?$/;

/** The file of a path; `/soak` is soak.html, `/` index.html. @returns null when there is none */
export async function pageAt(folder: string, path: string): Promise<Answer | null> {
  if (!PATH.test(path)) return null;
  const file = path.endsWith('/') ? `${path}index.html` : /\.\w+$/.test(path) ? path : `${path}.html`;
  const type = TYPES[file.slice(file.lastIndexOf('.') + 1)];
  if (type === undefined) return null;
  try {
    const [root, found] = [await realpath(folder), await realpath(join(folder, file))];
    // A link that leads out of the folder is no page.
    if (!found.startsWith(`${root}${sep}`)) return null;
    return new Answer(await readFile(found), type);
  } catch (error) {
    if (['ENOENT', 'EISDIR', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw error;
  }
}
