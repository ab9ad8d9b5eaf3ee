/** What the pages ask of the API: answers that stay on screen while newer ones are asked for, and errors in one line. */
import { useEffect, useRef, useState } from 'preact/hooks';
import { texts } from './settings.ts';

const TEXT = texts({
  away: ['The service does not answer. Is web.ts running?', '服务没有应答。web.ts 在运行吗？'],
  odd: ['The service answered something that is not JSON', '服务的应答不是 JSON'],
});

/** A request that hangs must not leave old figures looking like new ones. The API itself gives up a query after 30 s. */
const ANSWER_LIMIT_MS = 60_000;

/** An answer that is not the one asked for; its message is one line for people. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

export interface AskOptions {
  method?: 'GET' | 'POST' | 'PUT' | 'DELETE';
  body?: object;
  /** For what changes something. */
  token?: string;
  signal?: AbortSignal;
}

/** @throws ApiError with what the service said */
export async function ask<T>(path: string, { method = 'GET', body, token, signal }: AskOptions = {}): Promise<T> {
  const headers: Record<string, string> = {};
  if (body !== undefined) headers['content-type'] = 'application/json';
  if (token !== undefined) headers.authorization = `Bearer ${token}`;
  // What changes something is waited for as long as it takes.
  const limit = method === 'GET' ? [AbortSignal.timeout(ANSWER_LIMIT_MS)] : [];
  let answer: Response;
  let text: string;
  try {
    answer = await fetch(path, {
      method,
      headers,
      signal: AbortSignal.any([...(signal === undefined ? [] : [signal]), ...limit]),
      body: body === undefined ? null : JSON.stringify(body),
    });
    text = await answer.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, TEXT.away);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new ApiError(answer.status, `${TEXT.odd} (HTTP ${answer.status})`);
  }
  if (answer.ok) return value as T;
  const { error, field } = value as { error?: string; field?: string | null };
  throw new ApiError(answer.status, `${field ? `${field}: ` : ''}${error ?? `HTTP ${answer.status}`}`);
}

export interface Data<T> {
  /** The last answer; it stays when a newer one fails. */
  value: T | null;
  /** Why the newest one failed; null: it did not. */
  error: string | null;
  /** When the last answer came, ms. */
  at: number | null;
  /** Asks again now. */
  again(): void;
}

/**
 * An answer of the API, asked for again and again while the page is seen.
 * @param path null: nothing is asked for yet
 * @param everyMs absent: once
 */
export function useData<T>(path: string | null, everyMs?: number): Data<T> {
  const [state, setState] = useState<Omit<Data<T>, 'again'> & { path: string | null }>({
    ...{ value: null, error: null, at: null, path },
  });
  const again = useRef(() => {});
  useEffect(() => {
    if (path === null) return undefined;
    const gone = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let turn = 0;
    const look = async () => {
      clearTimeout(timer);
      const own = ++turn;
      try {
        const value = await ask<T>(path, { signal: gone.signal });
        if (own === turn && !gone.signal.aborted) setState({ value, error: null, at: Date.now(), path });
      } catch (error) {
        if (gone.signal.aborted || own !== turn) return;
        const { message } = error as Error;
        setState((last) =>
          last.path === path ? { ...last, error: message } : { value: null, error: message, at: null, path },
        );
      }
      if (own === turn && everyMs !== undefined && !document.hidden) timer = setTimeout(look, everyMs);
    };
    const seen = () => {
      if (!document.hidden && everyMs !== undefined) void look();
    };
    again.current = () => void look();
    document.addEventListener('visibilitychange', seen);
    void look();
    return () => {
      gone.abort();
      clearTimeout(timer);
      document.removeEventListener('visibilitychange', seen);
    };
  }, [path, everyMs]);
  const { value, error, at } = state;
  return { value, error, at, again: () => again.current() };
}

/** A path with its parameters; those that are null are left out. */
export function withQuery(path: string, query: Record<string, string | number | null | undefined>): string {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== '');
  const search = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return search === '' ? path : `${path}?${search}`;
}

/** A choice that is part of the page's address, so that it can be sent to others and survives a reload. */
export function useChoice<T extends string>(name: string, choices: readonly T[], first: T): [T, (chosen: T) => void] {
  const read = () => {
    const given = new URLSearchParams(location.search).get(name);
    return choices.find((each) => each === given) ?? first;
  };
  const [chosen, setChosen] = useState<T>(read);
  return [
    chosen,
    (next) => {
      const search = new URLSearchParams(location.search);
      search.set(name, next);
      history.replaceState(null, '', `${location.pathname}?${search}`);
      setChosen(next);
    },
  ];
}
