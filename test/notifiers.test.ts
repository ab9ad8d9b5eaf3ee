/** Notifiers against real receivers on sockets: what each is sent, what is tried again, and that no secret is told. */
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { SMTPServer } from 'smtp-server';
import type { Message } from '../scripts/lib/alert_text.ts';
import { loadConfig, type NotifyConfig } from '../scripts/lib/config.ts';
import { deliver, notifiersOf } from '../scripts/lib/notifiers.ts';

const NOW = Date.UTC(2026, 10, 24, 12);
const MESSAGE: Message = {
  title: '标题: raised 1',
  text: 'first\nsecond',
  severity: 'high',
  news: [{ event: 'raised' }],
};

interface Received {
  path: string;
  type: string | undefined;
  body: Record<string, unknown>;
}

describe('notifiers', () => {
  const received: Received[] = [];
  /** What the receiver answers next, and then for ever: status and body. */
  let answers: [number, string][] = [[200, 'ok']];
  const server = createServer((request: IncomingMessage, response: ServerResponse) => {
    let text = '';
    request.on('data', (chunk: Buffer) => (text += chunk));
    request.on('end', () => {
      received.push({ path: request.url!, type: request.headers['content-type'], body: JSON.parse(text) });
      const [status, body] = answers.length > 1 ? answers.shift()! : answers[0]!;
      response.writeHead(status, status === 302 ? { location: '/elsewhere' } : {});
      response.end(body);
    });
  });
  const mails: { from: string; to: string[]; text: string }[] = [];
  let refusal: Error | null = null;
  const smtp = new SMTPServer({
    authOptional: true,
    disabledCommands: ['STARTTLS'],
    onData(stream, session, done) {
      let text = '';
      stream.on('data', (chunk: Buffer) => (text += chunk));
      stream.on('end', () => {
        const { mailFrom, rcptTo } = session.envelope;
        mails.push({ from: mailFrom ? mailFrom.address : '', to: rcptTo.map(({ address }) => address), text });
        done(refusal);
      });
    },
  });
  let base = '';
  let mailPort = 0;
  before(async () => {
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    await new Promise<void>((done) => smtp.listen(0, '127.0.0.1', done));
    mailPort = (smtp.server.address() as AddressInfo).port;
  });
  after(async () => {
    server.close();
    await new Promise<void>((done) => smtp.close(done));
  });

  async function send(config: NotifyConfig, ...given: [number, string][]) {
    received.length = 0;
    if (given.length > 0) answers = given;
    const pauses: number[] = [];
    const pause = async (ms: number) => void pauses.push(ms);
    const delivery = await deliver(
      notifiersOf(config, 'desk', () => NOW),
      MESSAGE,
      pause,
    );
    return { delivery, pauses };
  }

  test('a JSON webhook gets title, text, severity and events', async () => {
    const { delivery } = await send({ webhookUrl: `${base}/hook?key=s3cret` }, [204, '']);
    assert.deepEqual(delivery, { delivered: ['webhook'], failed: [] });
    const { title, text, severity } = MESSAGE;
    assert.deepEqual(received, [
      {
        path: '/hook?key=s3cret',
        type: 'application/json; charset=utf-8',
        body: { source: 'marketprism', place: 'desk', title, text, severity, events: [{ event: 'raised' }] },
      },
    ]);
  });

  test('Slack gets its text', async () => {
    await send({ slackUrl: `${base}/slack` }, [200, 'ok']);
    assert.deepEqual(received[0]!.body, { text: '*标题: raised 1*\nfirst\nsecond' });
  });

  test('Lark gets a text message, signed when its bot asks for it, and its code counts, not its status', async () => {
    const content = { msg_type: 'text', content: { text: '标题: raised 1\nfirst\nsecond' } };
    const larkUrl = loadConfig({ LARKBOT_ID: `${base}/lark/abc` }).notify.larkUrl!;
    const { delivery } = await send({ larkUrl }, [200, '{"code":0,"msg":"success"}']);
    assert.deepEqual([delivery.delivered, received[0]!.body, received[0]!.path], [['lark'], content, '/lark/abc']);
    await send({ larkUrl, larkSecret: 'demo' });
    const timestamp = String(NOW / 1000);
    const sign = createHmac('sha256', `${timestamp}\ndemo`).update('').digest('base64');
    assert.deepEqual(received[0]!.body, { timestamp, sign, ...content });
    const refused = await send({ larkUrl }, [
      200,
      '{"code":19021,"msg":"sign match fail or timestamp is not within one hour"}',
    ]);
    assert.deepEqual(refused.delivery.failed, [
      { name: 'lark', reason: '19021: sign match fail or timestamp is not within one hour' },
    ]);
    assert.equal(received.length, 1, 'a refusal is not tried again');
    const page = await send({ larkUrl }, [200, '<html>']);
    assert.match(page.delivery.failed[0]!.reason, /an answer that is none of lark$/);
    assert.equal(loadConfig({ LARKBOT_ID: 'abc' }).notify.larkUrl, 'https://open.feishu.cn/open-apis/bot/v2/hook/abc');
  });

  test('DingTalk gets a text message; with a secret the address is signed', async () => {
    const dingtalkUrl = `${base}/robot/send?access_token=t`;
    const { delivery } = await send({ dingtalkUrl, dingtalkSecret: 'SEC1' }, [200, '{"errcode":0,"errmsg":"ok"}']);
    assert.deepEqual(delivery.delivered, ['dingtalk']);
    assert.deepEqual(received[0]!.body, { msgtype: 'text', text: { content: '标题: raised 1\nfirst\nsecond' } });
    const query = new URL(received[0]!.path, base).searchParams;
    const sign = createHmac('sha256', 'SEC1').update(`${NOW}\nSEC1`).digest('base64');
    assert.deepEqual(
      [...query],
      [
        ['access_token', 't'],
        ['timestamp', String(NOW)],
        ['sign', sign],
      ],
    );
    const refused = await send({ dingtalkUrl }, [200, '{"errcode":310000,"errmsg":"keywords not in content"}']);
    assert.deepEqual(refused.delivery.failed, [{ name: 'dingtalk', reason: '310000: keywords not in content' }]);
  });

  test('mail is a text with the title as its subject', async () => {
    const emailTo = 'desk@example.org,night@example.org';
    const { delivery } = await send({ smtpUrl: `smtp://127.0.0.1:${mailPort}?from=prism@example.org`, emailTo });
    assert.deepEqual(delivery, { delivered: ['email'], failed: [] });
    const [{ from, to, text } = assert.fail('no mail')] = mails;
    assert.deepEqual([from, to], ['prism@example.org', ['desk@example.org', 'night@example.org']]);
    assert.match(text, /\r\nSubject: =\?UTF-8\?/);
    assert.match(text, /first\r\nsecond/);
    refusal = Object.assign(new Error('no such user'), { responseCode: 550 });
    const refused = await send({ smtpUrl: `smtp://127.0.0.1:${mailPort}`, emailTo });
    assert.deepEqual([refused.delivery.failed, refused.pauses], [[{ name: 'email', reason: 'SMTP 550' }], []]);
    refusal = Object.assign(new Error('busy'), { responseCode: 451 });
    const busy = await send({ smtpUrl: `smtp://127.0.0.1:${mailPort}`, emailTo });
    assert.deepEqual([busy.delivery.failed, busy.pauses], [[{ name: 'email', reason: 'SMTP 451' }], [1000, 4000]]);
  });

  test('what may pass is tried three times, and another receiver does not wait for it', async () => {
    const config = { webhookUrl: `${base}/hook` };
    const second = await send(config, [503, ''], [429, ''], [200, '']);
    assert.deepEqual([second.delivery.delivered, second.pauses], [['webhook'], [1000, 4000]]);
    const never = await send({ ...config, slackUrl: 'http://127.0.0.1:9/T0/s3cret' }, [503, '']);
    assert.deepEqual(
      never.delivery.failed.sort((one, other) => one.name.localeCompare(other.name)),
      [
        { name: 'slack', reason: 'ECONNREFUSED' },
        { name: 'webhook', reason: 'HTTP 503' },
      ],
    );
    const refused = await send(config, [404, 'no such hook']);
    assert.deepEqual([refused.delivery.failed, refused.pauses], [[{ name: 'webhook', reason: 'HTTP 404' }], []]);
    const moved = await send(config, [302, '']);
    assert.deepEqual([moved.delivery.failed[0]!.reason, received.length], ['HTTP 302', 1]);
  });

  test('a wrong setting is one line, and shows no secret', () => {
    const line = (env: NodeJS.ProcessEnv) => {
      try {
        loadConfig(env);
      } catch (error) {
        return (error as Error).message;
      }
      return 'taken';
    };
    assert.equal(
      line({ SMTP_URL: 'smtp://127.0.0.1' }),
      'SMTP_URL and ALERT_EMAIL_TO come together: a server, and who is written to',
    );
    assert.equal(line({ DINGTALK_WEBHOOK_URL: 'ftp://s3cret' }), 'DINGTALK_WEBHOOK_URL: Invalid URL');
    assert.equal(line({ SMTP_URL: 'http://user:s3cret@h' }), 'SMTP_URL: Invalid URL');
    assert.equal(line({ MARKETPRISM_API_TOKEN: 'short' }), 'MARKETPRISM_API_TOKEN: takes at least 16 characters');
    assert.equal(
      line({ MARKETPRISM_TIMEZONE: 'Mars' }),
      'MARKETPRISM_TIMEZONE: takes the name of a time zone, such as Asia/Shanghai, not "Mars"',
    );
    assert.match(line({ MARKETPRISM_LANG: 'de' }), /^MARKETPRISM_LANG: .*, not "de"$/);
  });
});
