"""Routes x roles, in one table (promise S1): what the registries declare must be what stands here.

A new method needs a row here, and somebody who has thought about who may call it.
"""

from __future__ import annotations

from server.logic.context import Role

_TABLE = """
ackCommands                                  harvester operator
addHarvesterDialogs                          harvester operator
checkEventsAvailability                      harvester operator pilot
checkJobStatus                               harvester operator pilot user
getCommands                                  harvester operator
getEventRanges                               harvester operator pilot
getJob                                       harvester operator pilot
getKeyPair                                   harvester operator pilot
getProxy                                     harvester operator pilot
getResourceTypes                             harvester operator pilot user
getStatus                                    harvester operator pilot user
getWorkerStats                               harvester operator user
get_access_token                             harvester operator pilot
get_max_worker_id                            harvester operator
get_token_key                                harvester operator pilot
harvesterIsAlive                             harvester operator
isAlive                                      everybody
killJobs                                     operator user
reportWorkerStats_jobtype                    harvester operator
setDebugMode                                 operator user
set_command                                  operator user
set_debug_mode                               operator user
softkill                                     operator user
updateEventRange                             harvester operator pilot
updateEventRanges                            harvester operator pilot
updateJob                                    harvester operator pilot
updateJobsInBulk                             harvester operator pilot
updateServiceMetrics                         harvester operator
updateWorkerPilotStatus                      harvester operator pilot
updateWorkers                                harvester operator
creds/get_access_token                       harvester operator pilot
creds/get_key_pair                           harvester operator pilot
creds/get_proxy                              harvester operator pilot
creds/get_token_key                          harvester operator pilot
creds/renew_token                            harvester operator pilot
data/report_transfers                        operator
dataset/get                                  operator user
dataset/list                                 operator user
dataset/list_files                           operator user
event/acquire_event_ranges                   harvester operator pilot
event/get_available_event_range_count        harvester operator pilot
event/get_event_range_statuses               operator user
event/update_event_ranges                    harvester operator pilot
event/update_single_event_range              harvester operator pilot
file_server/delete_hpo_checkpoint            harvester operator
file_server/get_jedi_log                     operator
file_server/list_jedi_logs                   operator
file_server/update_jedi_log                  harvester operator
file_server/upload_cache_file                operator user
file_server/upload_hpo_checkpoint            harvester operator
file_server/upload_jedi_log                  harvester operator
file_server/upload_file_recovery_request     operator user
file_server/validate_cache_file              operator user
harvester/acknowledge_commands               harvester operator
harvester/acquire_commands                   harvester operator
harvester/add_command                        operator
harvester/add_dialogs                        harvester operator
harvester/get_current_worker_id              harvester operator
harvester/get_worker_statistics              harvester operator user
harvester/heartbeat                          harvester operator
harvester/list                               operator user
harvester/list_commands                      operator
harvester/list_dialogs                       operator
harvester/list_metrics                       operator
harvester/list_workers                       operator user
harvester/report_worker_statistics           harvester operator
harvester/update_service_metrics             harvester operator
harvester/update_workers                     harvester operator
job/get_details                              operator user
job/get_log                                  operator user
job/get_status                               harvester operator pilot user
job/kill                                     operator user
job/list                                     operator user
job/release_task                             operator
job/set_command                              operator user
job/set_debug_mode                           operator user
job/softkill                                 operator user
job/submit_jobs                              operator user
job/throttle_task                            operator
metaconfig/get_config                        operator user
metaconfig/get_resource_types                harvester operator pilot user
node/lift_pause                              operator
node/list_failing                            operator
metaconfig/list_config                       operator
metaconfig/remove_config                     operator
metaconfig/set_config                        operator
metaconfig/set_resource_types                operator
pilot/acquire_jobs                           harvester operator pilot
pilot/append_log                             harvester operator pilot
pilot/get_job_status                         harvester operator pilot user
pilot/update_job                             harvester operator pilot
pilot/update_jobs_bulk                       harvester operator pilot
pilot/update_worker_node                     harvester operator pilot
pilot/update_worker_node_gpu                 harvester operator pilot
pilot/update_worker_status                   harvester operator pilot
queue/add                                    operator
queue/get                                    harvester operator pilot user
queue/get_history                            operator user
queue/get_software                           harvester operator pilot user
queue/list                                   harvester operator pilot user
queue/remove                                 operator
queue/set                                    operator
retries/add                                  operator
retries/list                                 operator user
retries/remove                               operator
retries/set_active                           operator
share/get                                    operator user
share/list                                   operator user
share/set                                    operator
site/get                                     harvester operator pilot user
site/get_network                             harvester operator pilot user
site/list                                    harvester operator pilot user
site/list_sources                            operator
statistics/active_job_detailed_stats_by_site harvester operator user
statistics/active_job_stats_by_site          harvester operator user
statistics/job_metrics                       harvester operator user
storage/add                                  operator
storage/list                                 harvester operator pilot user
storage/remove                               operator
system/get_attributes                        harvester operator pilot user
system/is_alive                              everybody
token/create                                 operator
token/list                                   operator
token/revoke                                 operator
user/list                                    operator
user/set                                     operator
"""

#: What is no method of an API: open to everybody, because pilots fetch it before they have shown anything, or because
#: what watches over a server has nothing to show.
OPEN_ADDRESSES = frozenset(
    {
        "/cache/schedconfig/<name>",
        "/cache/ddmendpoints.json",
        "/cache/<name>",
        "/trf/user/<name>",
        "/auth/<name>",
        "/healthz",
        "/openapi.json",
        "/readyz",
    }
)

#: What is no method of an API and not for everybody. /metrics is open to the addresses in a setting as well.
GUARDED_ADDRESSES = {"/events": frozenset({Role.OPERATOR, Role.USER}), "/metrics": frozenset({Role.OPERATOR})}


def rights() -> dict[str, frozenset[Role]]:
    """The roles that may call each method; none for what is open to everybody."""
    lines = [line.split() for line in _TABLE.strip().splitlines()]
    return {path: frozenset(Role(word) for word in words if word != "everybody") for path, *words in lines}
