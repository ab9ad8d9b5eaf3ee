/** What can be asked of the API, as its own description has it. */
import { useData } from '../ui/data.ts';
import { Card, Loaded, Table } from '../ui/parts.tsx';
import { texts } from '../ui/settings.ts';

const TEXT = texts({
  title: ['What can be asked', '可用接口'],
  method: ['Method', '方法'],
  path: ['Path', '路径'],
  gives: ['What it gives', '说明'],
  parameters: ['Parameters', '参数'],
  document: ['The whole description', '完整描述'],
});

interface Operation {
  summary: string;
  parameters: { name: string }[];
}
interface Document {
  paths: Record<string, Record<string, Operation>>;
}

export function ApiListPage() {
  const document = useData<Document>('/api/openapi.json');
  return (
    <Card wide title={TEXT.title} note={<a href="/api/openapi.json">{TEXT.document}: /api/openapi.json</a>}>
      <Loaded data={document}>
        {({ paths }) => (
          <Table
            label={TEXT.title}
            rows={Object.entries(paths).flatMap(([path, methods]) =>
              Object.entries(methods).map(([method, operation]) => ({ path, method, ...operation })),
            )}
            keyOf={({ path, method }) => `${method} ${path}`}
            columns={[
              { title: TEXT.method, cell: ({ method }) => method.toUpperCase() },
              { title: TEXT.path, cell: ({ path, method }) => <PathLink path={path} method={method} /> },
              { title: TEXT.gives, cell: ({ summary }) => <span class="wraps">{summary}</span> },
              {
                title: TEXT.parameters,
                cell: ({ parameters }) => <span class="wraps">{parameters.map(({ name }) => name).join(', ')}</span>,
              },
            ]}
          />
        )}
      </Loaded>
    </Card>
  );
}

/** What needs no parameter can be looked at at once. */
function PathLink({ path, method }: { path: string; method: string }) {
  return method === 'get' && !path.includes('{') ? <a href={path}>{path}</a> : <code>{path}</code>;
}
