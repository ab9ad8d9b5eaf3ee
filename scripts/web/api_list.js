/** Lists the API as its own description has it. */
function cell(row, content) {
  row.insertCell().append(content);
}

function linkTo(path, method) {
  if (method !== 'get' || path.includes('{')) return path;
  const link = document.createElement('a');
  link.href = path;
  link.textContent = path;
  return link;
}

try {
  const answer = await fetch('/api/openapi.json');
  if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
  const { paths } = await answer.json();
  const table = document.getElementById('routes');
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, { summary, parameters }] of Object.entries(methods)) {
      const row = table.insertRow();
      cell(row, method.toUpperCase());
      cell(row, linkTo(path, method));
      cell(row, summary);
      cell(row, parameters.map(({ name }) => name).join(', '));
    }
  }
} catch (error) {
  const fault = document.getElementById('fault');
  fault.hidden = false;
  fault.textContent = `The API does not answer: ${error.message}`;
}
