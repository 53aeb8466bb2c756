// The JSON API of the worker. Paths are relative, so the page also works below a prefix.

/** What the worker said when it refused, in one sentence meant for the person. */
export class Refused extends Error {}

async function request(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The worker does not answer.");
  }
  // The login is over; the page asks for it, and comes back to where it was.
  if (response.status === 401) location.replace(`login${location.hash}`);
  const body = await response.json().catch(() => null);
  if (!response.ok) throw new Refused(body?.error ?? `The worker answered ${response.status}.`);
  if (body === null) throw new Refused("The worker's answer could not be read.");
  return body;
}

const post = (path, said) =>
  request(path, {
    method: "POST",
    // A form on another site cannot send this header: that is what it is for.
    headers: { "Content-Type": "application/json", "X-Microcurrent": "page" },
    body: JSON.stringify(said),
  });

const query = (parameters) =>
  new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== "" && value !== null)).toString();

const segment = encodeURIComponent;

export const api = {
  overview: () => request("api/overview"),
  devices: () => request("api/devices"),
  alerts: (filter) => request(`api/alerts?${query(filter)}`),
  alert: (id) => request(`api/alerts/${segment(id)}`),
  dashboards: () => request("api/dashboards"),
  dashboard: (uid) => request(`api/dashboards/${segment(uid)}`),
  /** `chosen` are lists of values by variable. */
  board: (uid, wanted, chosen, signal) => {
    const words = [...Object.entries(wanted), ...Object.entries(chosen).flatMap(([name, values]) => values.map((value) => [name, value]))];
    return request(`api/dashboards/${segment(uid)}/data?${new URLSearchParams(words)}`, { signal });
  },
  quarantine: (filter) => request(`api/quarantine?${query(filter)}`),
  quarantined: (id) => request(`api/quarantine/${segment(id)}`),
  /** `act` is ack, assign or comment. */
  act: (id, act, said) => post(`api/alerts/${segment(id)}/${act}`, said),
  /** `act` is preview, replay or discard. */
  refused: (act, said) => post(`api/quarantine/${act}`, said),
};
