/** The pages: a head that is the same everywhere, and below it the page of the address. */
import { type ComponentType, render } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import type { About } from '../lib/web/about_routes.ts';
import { ApiListPage } from './pages/api_list.tsx';
import { CorrelationPage } from './pages/correlation.tsx';
import { EscapePage } from './pages/escape.tsx';
import { EventsPage } from './pages/events.tsx';
import { MarketPage } from './pages/market.tsx';
import { MicroPage } from './pages/micro.tsx';
import { OverviewPage } from './pages/overview.tsx';
import { PricesPage } from './pages/prices.tsx';
import { QualityPage } from './pages/quality.tsx';
import { SoakPage } from './pages/soak.tsx';
import { LANGUAGES, THEMES, ZONES } from './ui/choices.ts';
import { useData } from './ui/data.ts';
import { Choice } from './ui/parts.tsx';
import { change, onChange, settings, texts } from './ui/settings.ts';
import './style.css';

const TEXT = texts({
  overview: ['Overview', '总览'],
  market: ['Market', '行情'],
  escape: ['Escape signals', '逃顶信号'],
  prices: ['Coin tracker', '币价追踪'],
  events: ['Major events', '重大事件'],
  micro: ['Microstructure', '微观结构'],
  correlation: ['Correlation', '相关性'],
  quality: ['Quality', '数据质量'],
  soak: ['Soak', '长稳测试'],
  api: ['API', '接口'],
  pages: ['Pages', '页面'],
  demo: [
    'Demo: this data is simulated. It is no market’s, and nothing may be concluded from it.',
    '演示模式：数据为模拟生成，并非真实行情，请勿据此判断。',
  ],
  language: ['Language', '语言'],
  theme: ['Theme', '主题'],
  zone: ['Times', '时间'],
  dark: ['Dark', '深色'],
  light: ['Light', '浅色'],
  local: ['Local', '本地'],
  beijing: ['Beijing', '北京'],
  skip: ['To the content', '跳到正文'],
  nothing: ['There is no such page', '没有此页面'],
});

interface PageEntry {
  path: string;
  name(): string;
  page: ComponentType;
}

const PAGES: PageEntry[] = [
  { path: '/', name: () => TEXT.overview, page: OverviewPage },
  { path: '/market', name: () => TEXT.market, page: MarketPage },
  { path: '/escape-signal-history', name: () => TEXT.escape, page: EscapePage },
  { path: '/coin-price-tracker', name: () => TEXT.prices, page: PricesPage },
  { path: '/major-events', name: () => TEXT.events, page: EventsPage },
  { path: '/microstructure', name: () => TEXT.micro, page: MicroPage },
  { path: '/correlation', name: () => TEXT.correlation, page: CorrelationPage },
  { path: '/quality', name: () => TEXT.quality, page: QualityPage },
  { path: '/soak', name: () => TEXT.soak, page: SoakPage },
  { path: '/api-list', name: () => TEXT.api, page: ApiListPage },
];

const LANGUAGE_NAMES = { en: 'English', zh: '简体中文' } as const;

function App() {
  const [, setTurn] = useState(0);
  useEffect(() => onChange(() => setTurn((turn) => turn + 1)), []);
  const about = useData<About>('/api/about');
  const here = location.pathname;
  const entry = PAGES.find(({ path }) => here === path || (path !== '/' && here.startsWith(`${path}/`)));
  document.title = `${entry?.name() ?? TEXT.nothing} · MarketPrism`;
  const Page = entry?.page;
  const { language, theme, zone } = settings();
  return (
    <>
      <a class="skip" href="#content">
        {TEXT.skip}
      </a>
      <header class="head">
        <a class="brand" href="/">
          <img src="/assets/icon.svg" alt="" width="22" height="22" />
          MarketPrism
        </a>
        <nav aria-label={TEXT.pages}>
          {PAGES.map(({ path, name }) => (
            <a key={path} href={path} aria-current={path === entry?.path ? 'page' : undefined}>
              {name()}
            </a>
          ))}
        </nav>
        <div class="settings">
          <Choice
            label={TEXT.language}
            choices={LANGUAGES}
            chosen={language}
            name={(each) => LANGUAGE_NAMES[each]}
            onChoose={(each) => change({ language: each })}
          />
          <Choice
            label={TEXT.theme}
            choices={THEMES}
            chosen={theme}
            name={(each) => TEXT[each]}
            onChoose={(each) => change({ theme: each })}
          />
          <Choice
            label={TEXT.zone}
            choices={ZONES}
            chosen={zone}
            name={(each) => TEXT[each]}
            onChoose={(each) => change({ zone: each })}
          />
        </div>
      </header>
      {about.value?.mode === 'demo' ? (
        <p class="demo" role="note">
          {TEXT.demo}
        </p>
      ) : null}
      <main id="content" tabIndex={-1}>
        <h1>{entry?.name() ?? TEXT.nothing}</h1>
        {Page === undefined ? null : <Page />}
      </main>
    </>
  );
}

render(<App />, document.getElementById('app')!);
