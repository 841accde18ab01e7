"""The texts of the error table: what each error is called, who is to blame, what to do next.

Data only; `pilot.common.errortable` reads it. One error is two lines: its name, its blame and the text that PanDA
monitors show for it; below that, indented, the advice.
"""

ERROR_TEXTS = """
GENERALERROR pilot: General pilot error, consult batch log
  Read the end of the batch job's output: this code means that no better one was found, so please report what you see.
NOLOCALSPACE site: Not enough local space
  Free space below the pilot's work directory, or point --workdir at a larger disk.
STAGEINFAILED storage: Failed to stage-in file
  Look up the file and endpoint in the error text and try the same transfer by hand from this node.
REPLICANOTFOUND storage: Replica not found
  Ask the catalogue where the file is; if every replica is gone, the data has to be made or transferred again.
NOSUCHFILE site: No such file or directory
  See which path the error text names; on a worker node it is usually a missing mount or a mistyped path in the queue.
USERDIRTOOLARGE payload: User work directory too large
  Let the job write less to its work directory or clean up as it goes, or ask for a queue with a larger maxwdir.
STDOUTTOOBIG payload: Payload log or stdout file too big
  Make the program print less (look for a message repeated in a loop at the end of payload.stdout).
SETUPFAILURE site: Failed during payload setup
  Run the set-up command from the log by hand on this node; a software area that is not mounted is the usual reason.
NFSSQLITE site: NFS SQLite locking problems
  Move the release database off NFS (to local disk or CVMFS), or switch on file locking for that mount.
QUEUEDATA server: Pilot could not download queuedata
  Check that the address in the log answers from this node, and that the dispatcher knows the queue: pilotkit queue list
QUEUEDATANOTOK site: Pilot found non-valid queuedata
  Correct the field of the queue description that the error text names: pilotkit queue show NAME, then queue set.
OUTPUTFILETOOLARGE payload: Output file too large
  Split the output into smaller files, or process fewer events per job.
NOSTORAGE site: Fetching default storage failed: no activity related storage defined
  Give the queue a storage endpoint for this activity in its "astorages", for instance pw for output and pl for logs.
STAGEOUTFAILED storage: Failed to stage-out file
  Check that the endpoint in the error text has space and takes writes from this node with the pilot's credentials.
PUTMD5MISMATCH storage: md5sum mismatch on output file
  The copy at the endpoint differs from the local file: check the storage and the network to it, then retry the job.
CHMODTRF site: Failed to chmod transform
  Make sure the work directory is on a file system that allows mode changes (some network mounts do not).
PANDAKILL user: This job was killed by panda server
  Someone, or a rule of the dispatcher, ordered this kill; the job's history names who and why.
GETMD5MISMATCH storage: md5sum mismatch on input file
  The file that arrived differs from the catalogue: compare the replica's checksum and declare it bad if it is wrong.
TRFDOWNLOADFAILURE server: Transform could not be downloaded
  Fetch the transformation's address from the log by hand on this node; it must answer there.
LOOPINGJOB payload: Looping job killed by pilot
  CPU, I/O, output and files stood still too long: see the stacks and the last files touched in the job's log.
STAGEINTIMEOUT storage: File transfer timed out during stage-in
  Check the load of the source endpoint and the network to it; the transfer made no progress for the allowed time.
STAGEOUTTIMEOUT storage: File transfer timed out during stage-out
  Check the load of the destination endpoint and the network to it; the transfer made no progress for the allowed time.
NOPROXY site: Grid proxy not valid
  Put a valid X.509 proxy where X509_USER_PROXY points, or make one with voms-proxy-init, and start the pilot again.
MISSINGOUTPUTFILE payload: Local output file is missing
  The program ended without writing this file: check the file name in the job and the end of payload.stdout.
SIZETOOLARGE user: Total file size too large
  Give the job fewer input files, or use a queue with a larger maxwdir or with direct access to its inputs.
GETADMISMATCH storage: adler32 mismatch on input file
  The file that arrived differs from the catalogue: compare the replica's checksum and declare it bad if it is wrong.
PUTADMISMATCH storage: adler32 mismatch on output file
  The copy at the endpoint differs from the local file: check the storage and the network to it, then retry the job.
NOVOMSPROXY site: Voms proxy not valid
  Renew the proxy with the VOMS attributes of your organisation: voms-proxy-init -voms <vo>
GETGLOBUSSYSERR storage: Globus system error during stage-in
  The GridFTP server of the source endpoint failed inside: report the time and the file to its admins.
PUTGLOBUSSYSERR storage: Globus system error during stage-out
  The GridFTP server of the destination endpoint failed inside: report the time and the file to its admins.
NOSOFTWAREDIR site: Software directory does not exist
  Mount the software area on this node, or correct "appdir" in the queue description.
NOPAYLOADMETADATA payload: Payload metadata does not exist
  The program was expected to write its metadata file (jobReport.json or metadata.xml): see why it stopped before that.
LFNTOOLONG user: LFN too long (exceeding limit of 255 characters)
  Choose a shorter output file name and submit again.
ZEROFILESIZE payload: File size cannot be zero
  The program made an empty file: find out why, or take the file out of the job's outputs.
MKDIR site: Failed to create local directory
  Check that the pilot's user may write to the directory in the error text and that the disk has free inodes.
KILLSIGNAL batch: Job terminated by unknown kill signal
  Ask the batch system why it ended this slot; memory and time limits are the usual reasons.
SIGTERM batch: Job killed by signal: SIGTERM
  The batch system or an admin ended the slot: its log of this batch job says why; the job itself may be retried.
SIGQUIT batch: Job killed by signal: SIGQUIT
  Someone or the batch system sent SIGQUIT to the pilot: look at the batch system's log of this slot.
SIGSEGV batch: Job killed by signal: SIGSEGV
  The pilot was told to end by SIGSEGV: look at the batch system's log of this slot and the node's kernel log.
SIGXCPU batch: Job killed by signal: SIGXCPU
  The slot's CPU time is used up: ask for more CPU time in the submit file, or for shorter jobs in the queue.
USERKILL user: Job killed by user
  The job's owner asked for this kill; nothing has to be mended.
SIGBUS batch: Job killed by signal: SIGBUS
  Look for disk or memory errors in the node's kernel log: SIGBUS often means that a mapped file could not be read.
SIGUSR1 batch: Job killed by signal: SIGUSR1
  The batch system warned that it is about to end the slot: see its time limit and its reason for this batch job.
SIGINT batch: Job killed by signal: SIGINT
  Someone pressed Ctrl-C, or the batch system interrupted the slot; start the job again if that was not wanted.
MISSINGINSTALLATION site: Missing installation
  Install the software release that the job asks for on this node, or take the node out of the queue.
PAYLOADOUTOFMEMORY payload: Payload ran out of memory
  Ask for more memory for this job (its minRamCount), or let it use less: the measured values are in the job's log.
REACHEDMAXTIME batch: Reached batch system time limit
  Ask for a longer slot, or split the work: the job needed more wall time than this slot had left.
UNKNOWNPAYLOADFAILURE payload: Job failed due to unknown reason (consult log file)
  Read the last lines of payload.stdout and payload.stderr in the job's log: the program failed without a known pattern.
FILEEXISTS storage: File already exists
  A file with this name is at the destination already: use a new output name, or remove what a failed attempt left.
BADALLOC payload: Transform failed due to bad_alloc
  The program asked for memory and got none (std::bad_alloc): raise the job's memory or look for a leak in it.
ESRECOVERABLE payload: Event service: recoverable error
  The event ranges that are left go to another pilot by themselves; look closer only if this job never gets on.
ESFATAL payload: Event service: fatal error
  Look for the first error of the event service in the pilot log: these event ranges cannot be processed as they are.
EXECUTEDCLONEJOB server: Clone job is already executed
  Another copy of this job did the work already; nothing has to be mended.
PAYLOADEXCEEDMAXMEM payload: Payload exceeded maximum allowed memory
  Raise the job's minRamCount or the queue's maxrss if the use was honest; the samples and the limit are in the log.
FAILEDBYSERVER server: Failed by server
  The dispatcher gave this job up: its history on the server says by which rule.
ESNOEVENTS server: Event service: no events
  The dispatcher had no event ranges left for this job; nothing has to be mended.
MESSAGEHANDLINGFAILURE payload: Failed to handle message from payload
  The program sent the pilot a message it could not read: see the message in the pilot log and mend the sender.
CHKSUMNOTSUP storage: Query checksum is not supported
  This endpoint cannot tell checksums: use another protocol or copytool for it, or switch checksums on at the storage.
NORELEASEFOUND site: No release candidates found
  Install a release for the platform that the job names, or take the platform out of the queue description.
NOUSERTARBALL server: User tarball could not be downloaded from PanDA server
  Submit the job again so that its sandbox is uploaded again; if that fails too, look at the server's sandbox cache.
BADXML payload: Badly formed XML
  Open the XML file named in the error text: it was cut short or written by a program that failed before.
NOTIMPLEMENTED pilot: The class or function is not implemented
  The job or the queue asks for a feature that this version does not have: see docs/compatibility.md.
UNKNOWNEXCEPTION pilot: An unknown pilot exception has occurred
  This is a fault in the pilot: please report it together with the traceback in pilotlog.txt.
CONVERSIONFAILURE server: Failed to convert object data
  A field of the job or queue description has the wrong type: correct the field that the error text names.
FILEHANDLINGFAILURE site: Failed during file handling
  Check permissions, free space and mounts for the path in the error text.
PAYLOADEXECUTIONFAILURE payload: Failed to execute payload
  The program ended with the exit code in transExitCode: read the end of payload.stdout and payload.stderr.
SINGULARITYGENERALFAILURE site: Singularity: general failure
  Run the container command from the pilot log by hand on this node: the runtime failed before the payload started.
SINGULARITYNOLOOPDEVICES site: Singularity: No more available loop devices
  Raise "max loop devices" in the container runtime's configuration, or use images unpacked in a directory.
SINGULARITYBINDPOINTFAILURE site: Singularity: Not mounting requested bind point
  Create the directory named in the error text on this node, or take it out of the queue's bind mounts.
SINGULARITYIMAGEMOUNTFAILURE site: Singularity: Failed to mount image
  Check that the image file is whole and readable on this node, and that squashfs and FUSE work for ordinary users.
PAYLOADEXECUTIONEXCEPTION pilot: Exception caught during payload execution
  The pilot failed while it started the payload: please report it together with the traceback in pilotlog.txt.
NOTDEFINED pilot: Not defined
  A value that the pilot needs was never set: the error text names it; check the queue and job description for it.
NOTSAMELENGTH server: Not same length
  Lists that belong together (files, sizes, checksums, endpoints) differ in length in the job definition: correct it.
NOSTORAGEPROTOCOL site: No protocol defined for storage endpoint
  Add a protocol for this activity to the endpoint's description: pilotkit storage list shows what is there.
UNKNOWNCHECKSUMTYPE server: Unknown checksum type
  Use adler32 (ad:) or md5 (md:) checksums in the job definition.
UNKNOWNTRFFAILURE payload: Unknown transform failure
  Read the end of payload.stderr: the transformation failed without a pattern that the pilot knows.
RUCIOSERVICEUNAVAILABLE storage: Rucio: Service unavailable
  Try "rucio ping" from this node; if the service is down, wait for it: the job can be retried.
EXCEEDEDMAXWAITTIME pilot: Exceeded maximum waiting time
  Something did not end although the pilot was told to stop: see in the pilot log what it was still waiting for.
COMMUNICATIONFAILURE server: Failed to communicate with server
  Check that the dispatcher's address in the log answers from this node; the outcome is in the spool and is sent later.
INTERNALPILOTPROBLEM pilot: An internal Pilot problem has occurred (consult Pilot log)
  This is a fault in the pilot: please report it together with pilotlog.txt.
LOGFILECREATIONFAILURE site: Failed during creation of log file
  Check that the work directory was still there and had space left when the log tarball was made.
RUCIOLOCATIONFAILED site: Failed to get client location for Rucio
  Set SITE_NAME in the environment of the pilot so that replicas near this node can be preferred.
RUCIOLISTREPLICASFAILED storage: Failed to get replicas from Rucio
  Try "rucio list-file-replicas" for the file in the error text; if it fails, check the Rucio account and credentials.
UNKNOWNCOPYTOOL site: Unknown copy tool
  Correct the copytool's name in the queue's "copytools" or "acopytools": the error text lists those there are.
SERVICENOTAVAILABLE storage: Service not available at the moment
  The service named in the error text is down or overloaded: wait for it and retry the job.
SINGULARITYNOTINSTALLED site: Singularity: not installed
  Install Apptainer on this node, or take the container setting out of the queue description.
NOREPLICAS storage: No matching replicas were found in list_replicas() output
  The file has no replica that this queue may read: check the queue's storage settings, or have the file replicated.
UNREACHABLENETWORK site: Unable to stage-in file since network is unreachable
  Check routing and firewall from this node to the storage host in the error text.
PAYLOADSIGSEGV payload: SIGSEGV: Invalid memory reference or a segmentation fault
  The program crashed: find its stack trace in payload.stderr, or run the same command under a debugger.
NONDETERMINISTICDDM site: Failed to construct SURL for non-deterministic ddm (update CRIC)
  Mark the endpoint as deterministic, or give its file paths in the job: no path can be computed for such an endpoint.
JSONRETRIEVALTIMEOUT server: JSON retrieval timed out
  Check that the address in the log answers from this node within the time limit, and how busy its server is.
MISSINGINPUTFILE storage: Input file is missing in storage element
  The catalogue names a file that the storage does not have: declare the replica lost, then retry the job.
BLACKHOLE site: Black hole detected in file system (consult Pilot log)
  Take this node out of the batch system: its file system swallows what is written to it.
NOREMOTESPACE storage: No space left on device
  Free space at the destination endpoint or raise its quota, then retry the job.
SETUPFATAL site: Setup failed with a fatal exception (consult Payload log)
  Read the first fatal line in the payload log and run the set-up by hand on this node.
MISSINGUSERCODE server: User code not available on PanDA server (resubmit task with --useNewCode)
  Submit again with the code uploaded anew (--useNewCode): the sandbox is no longer in the server's cache.
JOBALREADYRUNNING server: Job is already running elsewhere
  Another pilot holds this job and goes on with it; nothing has to be mended unless this happens often.
BADMEMORYMONITORJSON pilot: Memory monitor produced bad output
  Look at memory_monitor_summary.json in the job's log; if the site's own prmon wrote it, update prmon.
STAGEINAUTHENTICATIONFAILURE storage: Authentication failure during stage-in
  Check that the pilot's proxy or token is valid and that the source endpoint lets its owner read.
DBRELEASEFAILURE site: Local DBRelease handling failed (consult Pilot log)
  Check that the database release named in the log is installed and readable on this node.
SINGULARITYNEWUSERNAMESPACE site: Singularity: Failed invoking the NEWUSER namespace runtime
  Allow user namespaces on this node (user.max_user_namespaces above 0), or install the runtime with its setuid helper.
BADQUEUECONFIGURATION site: Bad queue configuration detected
  Correct the setting that the error text names: pilotkit queue show NAME, then pilotkit queue set NAME key=value.
MIDDLEWAREIMPORTFAILURE site: Failed to import middleware (consult Pilot log)
  Install the Python package named in the log for the Python that runs the pilot, or choose another copytool.
NOOUTPUTINJOBREPORT payload: Found no output in job report
  The program wrote a jobReport.json without output files: see why it made none.
RESOURCEUNAVAILABLE site: Resource temporarily unavailable
  Raise the limit on processes or threads for the pilot's user (ulimit -u, or the pids limit of the slot).
SINGULARITYFAILEDUSERNAMESPACE site: Singularity: Failed to create user namespace
  Allow user namespaces on this node: sysctl user.max_user_namespaces above 0, and no security policy against them.
TRANSFORMNOTFOUND user: Transform not found
  Correct the job's transformation: the command or address in the error text does not exist on this node.
UNSUPPORTEDSL5OS site: Unsupported SL5 OS
  Upgrade this node: no software is made any more for an operating system that old.
SINGULARITYRESOURCEUNAVAILABLE site: Singularity: Resource temporarily unavailable
  Raise the limit on processes for the pilot's user: the container runtime could not start another one.
UNRECOGNIZEDTRFARGUMENTS user: Unrecognized transform arguments
  Correct the job parameters: the transformation refused the arguments that payload.stderr names.
EMPTYOUTPUTFILE payload: Empty output file detected
  The program left this output empty: see payload.stdout for the reason, or allow empty outputs in the job.
UNRECOGNIZEDTRFSTDERR payload: Unrecognized fatal error in transform stderr
  Read the fatal line of payload.stderr that the error text quotes.
STATFILEPROBLEM site: Failed to stat proc file for CPU consumption calculation
  Check that /proc is mounted and readable for the pilot's user on this node (mount option hidepid hides processes).
NOSUCHPROCESS pilot: CPU consumption calculation failed: No such process
  The payload ended while its CPU time was read; report it if the job was otherwise good.
GENERALCPUCALCPROBLEM pilot: General CPU consumption calculation problem (consult Pilot log)
  Find the failing /proc file in pilotlog.txt and report it: the job's CPU time could not be computed.
COREDUMP payload: Core dump detected
  The program crashed and left a core file: run the same command under a debugger, or look at its stack in the log.
PREPROCESSFAILURE payload: Pre-process command failed
  Read preprocess_stdout.txt and preprocess_stderr.txt in the job's log: this step comes before the payload.
POSTPROCESSFAILURE payload: Post-process command failed
  Read postprocess_stdout.txt and postprocess_stderr.txt in the job's log: this step comes after the payload.
MISSINGRELEASEUNPACKED user: Missing release setup in unpacked container
  Choose an image that contains the release: its set-up script was not found inside the unpacked image.
PANDAQUEUENOTACTIVE site: PanDA queue is not active
  Set the queue's state to ACTIVE when the site is ready: pilotkit queue set NAME state=ACTIVE
IMAGENOTFOUND user: Image not found
  Correct the container image of the job or queue: the path or address in the error text does not exist from this node.
REMOTEFILECOULDNOTBEOPENED storage: Remote file could not be opened
  Open the file by hand from this node with the address in the error text; check the storage and the credentials.
XRDCPERROR storage: Xrdcp was unable to open file
  Try xrdcp by hand with the addresses in the error text: the server refused the file or does not have it.
KILLPAYLOAD user: Raythena has decided to kill payload
  A file pilot_kill_payload in the run directory asked for this end; ask whoever runs the workflow there.
MISSINGCREDENTIALS site: Unable to locate credentials for S3 transfer
  Give the pilot the S3 access key and secret key of the bucket, as the endpoint's description says.
NOCTYPES site: Python module ctypes not available on worker node
  Install a complete Python (its ctypes module needs libffi), or let the pilot use another Python 3.9 or later.
CHECKSUMCALCFAILURE site: Failure during checksum calculation
  Check that the file in the error text can be read to its end: disk errors show in the node's kernel log.
COMMANDTIMEDOUT site: Command timed out
  Run the command in the error text by hand on this node and see what it waits for.
REMOTEFILEOPENTIMEDOUT storage: Remote file open timed out
  Check the load of the storage host in the error text, or let the job copy its inputs instead of direct access.
FRONTIER site: Frontier error
  Check the Frontier servers and Squid proxies that this site is configured for: the conditions data did not come.
VOMSPROXYABOUTTOEXPIRE site: VOMS proxy is about to expire
  Renew the proxy (voms-proxy-init -voms <vo>) and give pilots one that outlives their slot.
BADOUTPUTFILENAME user: Output file name contains illegal characters
  Use letters, digits, dot, underscore and hyphen in output file names, and submit again.
APPTAINERNOTINSTALLED site: Apptainer: not installed
  Install Apptainer on this node, or take the container setting out of the queue description.
CERTIFICATEHASEXPIRED site: Certificate has expired
  Renew the certificate named in the error text; check the node's clock if the certificate looks valid.
REMOTEFILEDICTDOESNOTEXIST pilot: Remote file open dictionary does not exist
  The check of remote inputs left no result file: see in the log why the check ended early.
LEASETIME batch: Lease time is up
  The pilot used up the time it was lent for this workflow (--leasetime); start another one to go on.
LOGCREATIONTIMEOUT site: Log file creation timed out
  Check the speed of the local disk and for huge or endless files in the job's directory.
CVMFSISNOTALIVE site: CVMFS is not responding
  Run cvmfs_config probe on this node, restart autofs if it fails, or use --nocvmfs where CVMFS is not needed.
LSETUPTIMEDOUT site: Lsetup command timed out during remote file open
  Run the lsetup command from the log by hand on this node: a slow or missing CVMFS is the usual reason.
PREEMPTION batch: Job was preempted
  A more important job took the slot; this one is not at fault and runs again elsewhere.
ARCPROXYFAILURE site: General arcproxy failure
  Run arcproxy -I with the pilot's proxy by hand on this node and read its message.
ARCPROXYLIBFAILURE site: Arcproxy failure while loading shared libraries
  Repair the ARC client installation on this node: arcproxy does not find the library named in the error text.
PROXYTOOSHORT site: Proxy is too short
  Give the pilot a proxy with more time left than a job needs: see the queue's time limit.
STAGEOUTAUTHENTICATIONFAILURE storage: Authentication failure during stage-out
  Check that the pilot's proxy or token is valid and that the destination endpoint lets its owner write.
QUEUENOTSETUPFORCONTAINERS site: Queue is not set up for containers
  Set the queue's container_type (for instance singularity:pilot), or send the job to a queue that has one.
NOJOBSINPANDA server: No jobs in PanDA
  Nothing has to be mended: the dispatcher had no job for this queue and label; the log says what it answered.
PANDAQUEUENOTONLINE site: PanDA queue is not online
  Set the queue's status to online when the site is ready: pilotkit queue set NAME status=online
"""
