/** Who may ask: on loopback whoever is on this machine may read, elsewhere only who has the token; writing needs the token everywhere. */
import { createHash, timingSafeEqual } from 'node:crypto';
import { isIP } from 'node:net';
import { UsageError } from '../cli.ts';
import type { Config } from '../config.ts';
import { WebError } from './route.ts';

const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[?::1\]?)$/i;
const NO_HEADER = 'send Authorization: Bearer TOKEN';

export interface Credentials {
  authorization?: string | undefined;
  host?: string | undefined;
}

/** What the headers of a request must have. */
export interface Access {
  /** @throws WebError 401, 403 or 421 */
  toRead(credentials: Credentials): void;
  /** @throws WebError 401 or 403 */
  toWrite(credentials: Credentials): void;
}

/** @param host where the service listens @throws UsageError where that would give everything to everybody */
export function accessTo(host: string, { apiToken: token }: Pick<Config, 'apiToken'>): Access {
  const isLocal = LOOPBACK.test(host);
  if (!isLocal && token === undefined)
    throw new UsageError(
      `MARKETPRISM_WEB_HOST=${host} lets other machines in: set MARKETPRISM_API_TOKEN, which they then need`,
    );
  return {
    toRead({ authorization, host: asked }) {
      if (isLocal) return checkName(asked);
      // A browser asks its user for a name and a password: the password is the token.
      if (!isToken(bearerOf(authorization) ?? passwordOf(authorization), token))
        throw new WebError(401, `${NO_HEADER}, or the token as the password of any name`, 'authorization');
    },
    toWrite({ authorization }) {
      if (token === undefined) throw new WebError(403, 'MARKETPRISM_API_TOKEN is not set: nothing may be changed');
      // A browser sends passwords on its own, also for a page of somebody else; a Bearer header it does not.
      if (!isToken(bearerOf(authorization), token)) throw new WebError(401, NO_HEADER, 'authorization');
    },
  };
}

/** A name of somebody else's that leads to this machine makes his page, in a browser here, one of ours. */
function checkName(asked: string | undefined): void {
  const name = (asked ?? '').replace(/:\d*$/, '');
  if (name !== '' && !LOOPBACK.test(name) && isIP(name) === 0)
    throw new WebError(421, 'this service is known as localhost; other names need MARKETPRISM_WEB_HOST', 'host');
}

function bearerOf(header: string | undefined): string | undefined {
  return /^Bearer (.+)$/i.exec(header ?? '')?.[1];
}

function passwordOf(header: string | undefined): string | undefined {
  const pair = /^Basic (.+)$/i.exec(header ?? '')?.[1];
  return pair === undefined
    ? undefined
    : Buffer.from(pair, 'base64')
        .toString()
        .replace(/^[^:]*:/, '');
}

function isToken(given: string | undefined, token: string | undefined): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  // Digests are of one length, and tell nothing by how long the comparison takes.
  return given !== undefined && token !== undefined && timingSafeEqual(digest(given), digest(token));
}
