"""Routes x roles, in one table (promise S1): what the registries declare must be what stands here.

A new method needs a row here, and somebody who has thought about who may call it.
"""

from __future__ import annotations

from server.logic.context import Role

_TABLE = """
checkEventsAvailability                      operator pilot
checkJobStatus                               operator pilot user
getEventRanges                               operator pilot
getJob                                       operator pilot
getKeyPair                                   operator pilot
getProxy                                     operator pilot
getResourceTypes                             operator pilot user
getStatus                                    operator pilot user
get_access_token                             operator pilot
get_token_key                                operator pilot
isAlive                                      everybody
updateEventRange                             operator pilot
updateEventRanges                            operator pilot
updateJob                                    operator pilot
updateJobsInBulk                             operator pilot
updateWorkerPilotStatus                      operator pilot
creds/get_access_token                       operator pilot
creds/get_key_pair                           operator pilot
creds/get_proxy                              operator pilot
creds/get_token_key                          operator pilot
creds/renew_token                            operator pilot
event/acquire_event_ranges                   operator pilot
event/get_available_event_range_count        operator pilot
event/update_event_ranges                    operator pilot
event/update_single_event_range              operator pilot
file_server/upload_cache_file                operator user
file_server/validate_cache_file              operator user
job/get_details                              operator user
job/get_log                                  operator user
job/get_status                               operator pilot user
job/kill                                     operator user
job/list                                     operator user
job/set_command                              operator user
job/set_debug_mode                           operator user
job/submit_jobs                              operator user
metaconfig/get_config                        operator user
metaconfig/get_resource_types                operator pilot user
metaconfig/list_config                       operator
metaconfig/remove_config                     operator
metaconfig/set_config                        operator
pilot/acquire_jobs                           operator pilot
pilot/append_log                             operator pilot
pilot/get_job_status                         operator pilot user
pilot/update_job                             operator pilot
pilot/update_jobs_bulk                       operator pilot
pilot/update_worker_node                     operator pilot
pilot/update_worker_node_gpu                 operator pilot
pilot/update_worker_status                   operator pilot
queue/add                                    operator
queue/get                                    operator pilot user
queue/list                                   operator pilot user
queue/set                                    operator
retries/add                                  operator
retries/list                                 operator user
retries/remove                               operator
retries/set_active                           operator
storage/add                                  operator
storage/list                                 operator pilot user
system/get_attributes                        operator pilot user
system/is_alive                              everybody
token/create                                 operator
token/list                                   operator
token/revoke                                 operator
user/list                                    operator
user/set                                     operator
"""

#: What is no method of an API: open to everybody, because pilots fetch it before they have shown anything.
OPEN_ADDRESSES = frozenset(
    {
        "/cache/schedconfig/schedconfig.all.json",
        "/cache/schedconfig/<name>",
        "/cache/ddmendpoints.json",
        "/cache/<name>",
        "/trf/user/<name>",
    }
)


def rights() -> dict[str, frozenset[Role]]:
    """The roles that may call each method; none for what is open to everybody."""
    lines = [line.split() for line in _TABLE.strip().splitlines()]
    return {path: frozenset(Role(word) for word in words if word != "everybody") for path, *words in lines}
