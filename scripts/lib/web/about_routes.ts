/** `/api/about`: which service this is, and whether its data are real. */
import { z } from 'zod';
import { MODES } from '../config.ts';
import { VERSION } from '../service.ts';
import { type Route, route } from './route.ts';

const ABOUT = z.object({
  name: z.literal('marketprism'),
  version: z.string(),
  mode: z.enum(MODES).describe('demo: all data are simulated.'),
  exchanges: z.array(z.string()).describe('Those that are collected.'),
  time: z.number().describe('The clock of the service, ms.'),
  is_writable: z.boolean().describe('A token is set: what changes something is answered where it is sent.'),
});
export type About = z.infer<typeof ABOUT>;

export const ABOUT_ROUTES: Route[] = [
  route({
    ...{ method: 'GET', path: '/api/about', summary: 'Which service this is, and whether its data are simulated.' },
    answer: ABOUT,
    handle: async ({ config, clock }): Promise<About> => ({
      ...{ name: 'marketprism', version: VERSION, mode: config.mode, exchanges: [...config.exchanges] },
      ...{ time: clock(), is_writable: config.apiToken !== undefined },
    }),
  }),
];
