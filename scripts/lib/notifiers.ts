/** Ways to tell people: webhooks and mail, each tried several times; what reaches nobody is kept in a file. */
import { createHmac } from 'node:crypto';
import fetch from 'node-fetch';
import { createTransport } from 'nodemailer';
import { z } from 'zod';
import type { Message } from './alert_text.ts';
import type { NotifyConfig } from './config.ts';

export interface Notifier {
  name: string;
  /** @throws Refused when another try is in vain; any other error when one may help */
  send(message: Message, signal: AbortSignal): Promise<void>;
}

/** The receiver understood, and will say the same again. */
export class Refused extends Error {}

export interface Delivery {
  /** Names of those who took it. */
  delivered: string[];
  /** Of those who did not: why, without the address, which may hold a secret. */
  failed: { name: string; reason: string }[];
}

const TIMEOUT_MS = 10_000;
/** Pauses between tries, ms. */
const RETRIES_MS = [1000, 4000];

/** @param place who sends, such as the host's name @param clock wall clock, ms: signatures hold it */
export function notifiersOf(config: NotifyConfig, place: string, clock: () => number): Notifier[] {
  const { webhookUrl, slackUrl, larkUrl, larkSecret, dingtalkUrl, dingtalkSecret, smtpUrl, emailTo } = config;
  const notifiers: (Notifier | null)[] = [
    webhookUrl === undefined ? null : hook('webhook', () => webhookUrl, jsonBody(place)),
    slackUrl === undefined
      ? null
      : hook(
          'slack',
          () => slackUrl,
          ({ title, text }) => ({ text: `*${title}*\n${text}` }),
        ),
    larkUrl === undefined ? null : hook('lark', () => larkUrl, larkBody(larkSecret, clock), LARK_ANSWER),
    dingtalkUrl === undefined
      ? null
      : hook('dingtalk', () => signedDingtalk(dingtalkUrl, dingtalkSecret, clock), dingtalkBody, DINGTALK_ANSWER),
    smtpUrl === undefined || emailTo === undefined ? null : mail(smtpUrl, emailTo, place),
  ];
  return notifiers.filter((each) => each !== null);
}

/**
 * Tells all at the same time; each is tried three times.
 * @param pause waits, ms
 */
export async function deliver(
  notifiers: readonly Notifier[],
  message: Message,
  pause: (ms: number) => Promise<void>,
): Promise<Delivery> {
  const delivery: Delivery = { delivered: [], failed: [] };
  await Promise.all(
    notifiers.map(async (notifier) => {
      const reason = await tried(notifier, message, pause);
      if (reason === null) delivery.delivered.push(notifier.name);
      else delivery.failed.push({ name: notifier.name, reason });
    }),
  );
  return delivery;
}

/** @returns null when it was taken, else why not */
async function tried(
  notifier: Notifier,
  message: Message,
  pause: (ms: number) => Promise<void>,
): Promise<string | null> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      await notifier.send(message, AbortSignal.timeout(TIMEOUT_MS));
      return null;
    } catch (error) {
      const wait = RETRIES_MS[attempt];
      if (error instanceof Refused || wait === undefined) return reasonOf(error);
      await pause(wait);
    }
  }
}

/** Messages of `node-fetch` and of mail name the address, which is the secret of some receivers. */
function reasonOf(error: unknown): string {
  if (error instanceof Refused || error instanceof Unavailable) return error.message;
  const { name, code } = error as Error & { code?: string };
  if (name === 'AbortError' || name === 'TimeoutError') return `no answer within ${TIMEOUT_MS / 1000} s`;
  return code ?? name;
}

class Unavailable extends Error {}

type Body = (message: Message) => object;

/** Of a receiver that answers 200 and says in the body whether it took the message. */
type Answer = z.ZodType<{ code: number; reason: string }>;

function hook(name: string, urlOf: () => string, body: Body, answer?: Answer): Notifier {
  return {
    name,
    async send(message, signal) {
      const response = await fetch(urlOf(), {
        method: 'POST',
        headers: { 'content-type': 'application/json; charset=utf-8' },
        body: JSON.stringify(body(message)),
        // A redirect would carry what is told to another host.
        redirect: 'manual',
        signal,
      });
      const text = await response.text();
      const { status } = response;
      if (status === 429 || status >= 500) throw new Unavailable(`HTTP ${status}`);
      if (status < 200 || status >= 300) throw new Refused(`HTTP ${status}`);
      if (answer === undefined) return;
      const said = answer.safeParse(parsed(text));
      if (!said.success) throw new Refused(`HTTP ${status} with an answer that is none of ${name}`);
      if (said.data.code !== 0) throw new Refused(`${said.data.code}: ${said.data.reason}`);
    },
  };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

const jsonBody =
  (place: string): Body =>
  ({ title, text, severity, news }) => ({ source: 'marketprism', place, title, text, severity, events: news });

/** Lark says `code`, older hooks of it `StatusCode`. */
const LARK_ANSWER: Answer = z
  .object({ code: z.number().optional(), StatusCode: z.number().optional(), msg: z.string().default('') })
  .refine(({ code, StatusCode }) => (code ?? StatusCode) !== undefined)
  .transform(({ code, StatusCode, msg }) => ({ code: code ?? StatusCode ?? 0, reason: msg }));

/** Text message of a custom bot; signed, when it has a secret: HMAC-SHA256 of nothing under `seconds\nsecret`. */
function larkBody(secret: string | undefined, clock: () => number): Body {
  return ({ title, text }) => {
    const content = { msg_type: 'text', content: { text: `${title}\n${text}` } };
    if (secret === undefined) return content;
    const timestamp = String(Math.floor(clock() / 1000));
    return { timestamp, sign: createHmac('sha256', `${timestamp}\n${secret}`).digest('base64'), ...content };
  };
}

const DINGTALK_ANSWER: Answer = z
  .object({ errcode: z.number(), errmsg: z.string().default('') })
  .transform(({ errcode, errmsg }) => ({ code: errcode, reason: errmsg }));

const dingtalkBody: Body = ({ title, text }) => ({ msgtype: 'text', text: { content: `${title}\n${text}` } });

/** Signed, when the robot has a secret: HMAC-SHA256 of `ms\nsecret` under the secret, in the address. */
function signedDingtalk(url: string, secret: string | undefined, clock: () => number): string {
  if (secret === undefined) return url;
  const timestamp = String(clock());
  const signed = new URL(url);
  signed.searchParams.set('timestamp', timestamp);
  signed.searchParams.set('sign', createHmac('sha256', secret).update(`${timestamp}\n${secret}`).digest('base64'));
  return signed.href;
}

/** `smtp://user:password@host:port`, with `?from=ADDRESS` where the user is no address. */
function mail(smtpUrl: string, to: string, place: string): Notifier {
  const url = new URL(smtpUrl);
  const user = decodeURIComponent(url.username);
  const from = url.searchParams.get('from') ?? (user.includes('@') ? user : `marketprism@${place}`);
  url.searchParams.delete('from');
  const transport = createTransport({
    url: url.href,
    connectionTimeout: TIMEOUT_MS,
    greetingTimeout: TIMEOUT_MS,
    socketTimeout: TIMEOUT_MS,
  });
  return {
    name: 'email',
    async send({ title, text }) {
      try {
        await transport.sendMail({ from, to, subject: title, text: `${text}\n` });
      } catch (error) {
        const { responseCode, code } = error as Error & { responseCode?: number; code?: string };
        if (responseCode !== undefined && responseCode >= 500) throw new Refused(`SMTP ${responseCode}`);
        throw new Unavailable(responseCode === undefined ? (code ?? 'no connection') : `SMTP ${responseCode}`);
      }
    },
  };
}
