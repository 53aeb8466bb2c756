// What a table of results says, cell by cell, for those panels that do not show it as a table.

/** The tags of a row: {device_id: "mc-1"}. */
export function tagsOf(result, row) {
  return Object.fromEntries(Object.entries(result.tags).map(([title, tag]) => [tag, row[result.columns.indexOf(title)]]));
}

/** One entry for each value, named by its group, its column, or both. */
export function named(panel, result) {
  const groups = result.columns.filter((title) => title in result.tags);
  const columns = result.columns.filter((title) => !(title in result.tags) && !panel.looks[title]?.hidden);
  return result.rows.flatMap((row) => columns.map((column) => {
    const group = groups.map((title) => row[result.columns.indexOf(title)]).join(" ");
    const name = !group ? column : columns.length > 1 ? `${group}, ${column}` : group;
    return { name, column, value: row[result.columns.indexOf(column)], tags: tagsOf(result, row), row };
  }));
}

/** The link that a panel gives a row, by the first of its columns that has one. */
export const linkOf = (panel) => Object.values(panel.looks).find((look) => look.link)?.link ?? null;
